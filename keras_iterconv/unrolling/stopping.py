"""Stopping rules: what a loop measures at each update, and at which values a sample goes on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_iterconv.unrolling.samples import (
    batch_size,
    norm_dtype,
    sample_norms,
    samples_finite,
)
from keras_iterconv.unrolling.update import State


class StoppingRule:
    """Base class of the static descriptions of a stopping rule.

    After each update the loop measures one value for each sample, and compares it with the
    threshold. A sample whose value is NaN or infinite stops: it cannot converge.

    A subclass is a frozen dataclass without tensors, as an `Update` is: two equal rules share a
    graph. The weights of a readout are among those of the update.

    Attributes:
        reads_state: Whether the value depends on the state after the update. Else TensorFlow may
            write the new state into the memory of the change.
    """

    reads_state: bool = False

    def begin(self, state: State, weights: tuple, drives: tuple) -> Any:
        """Return what the rule remembers of each sample at x(0), a structure of `[N, ...]`."""
        return ()

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        """Return the value of each sample after an update, and the new memory.

        Args:
            change: The change of the state, a structure of tensors `[n, ...]`.
            state: The state after the update; an empty tuple unless `reads_state`.
            memory: The memory after the update before, or what `begin` returned.
            weights: The weights of the update.
            drives: Its drives, `[n, ...]` each.

        Returns:
            `(value, memory)`: `[n]` in the dtype of the state's norms, and a structure of the
            memory's shapes and dtypes.
        """
        raise NotImplementedError

    def goes_on(self, value: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        """Return which samples have not converged, bool `[n]`; false where a value is not finite.

        Args:
            value: `[n]`.
            threshold: A scalar of the same dtype.
        """
        # NaN fails both comparisons.
        return (value >= threshold) & (value <= value.dtype.max)

    def unmet_value(self, threshold: tf.Tensor) -> tf.Tensor:
        """Return a value at which a sample goes on, a scalar; it stands for "no update yet"."""
        return threshold


@dataclasses.dataclass(frozen=True)
class UpdateNorm(StoppingRule):
    """Stop where the 2-norm of the change of the whole state is below the threshold."""

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        return sample_norms(change), memory


@dataclasses.dataclass(frozen=True)
class RelativeUpdateNorm(StoppingRule):
    """Stop where the 2-norm of the change over that of the new state is below the threshold.

    A change of zero has the value zero, also where the state is zero.

    Attributes:
        visible: A function from `(state, drives)` to the state whose norm counts, in which masked
            positions are zero; None for the whole state.
    """

    visible: Callable[[State, tuple], State] | None = None
    reads_state = True

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        if self.visible is not None:
            state = self.visible(state, drives)
        norms, sizes = sample_norms(change), sample_norms(state)
        tiny = np.finfo(norms.dtype.as_numpy_dtype).tiny
        # A change that is not zero, of a state that became zero, is large beside it.
        return tf.where(norms > 0, norms / tf.maximum(sizes, tiny), norms), memory


@dataclasses.dataclass(frozen=True)
class HaltingProbability(StoppingRule):
    """Stop where a learned probability of stopping is above the threshold.

    The value is sigmoid(readout(state)).

    Attributes:
        readout: A function from `(state, weights, drives)` to one logit for each sample, `[n]`.

    Reference:
        Graves 2016, "Adaptive computation time for recurrent neural networks"; Banino et al. 2021,
        "PonderNet".
    """

    readout: Callable[[State, tuple, tuple], tf.Tensor]
    reads_state = True

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        value = tf.sigmoid(tf.cast(self.readout(state, weights, drives), norm_dtype(state)))
        # The sigmoid of an infinite logit is finite, and NaN does not pass through every head.
        return not_a_number_where(~samples_finite(state), value), memory

    def goes_on(self, value: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        return value <= threshold


@dataclasses.dataclass(frozen=True)
class UnchangedPrediction(StoppingRule):
    """Stop where the classes of largest score were the same in `threshold` updates in a row.

    The value is the number of updates in a row after which the prediction was that of the state
    before, that of x(0) among them.

    Attributes:
        readout: A function from `(state, weights, drives)` to scores `[n, ..., classes]`. With more
            axes than two, a sample's prediction is the class of each position.
    """

    readout: Callable[[State, tuple, tuple], tf.Tensor]
    reads_state = True

    def begin(self, state: State, weights: tuple, drives: tuple) -> Any:
        prediction = tf.argmax(self.readout(state, weights, drives), axis=-1)
        return prediction, tf.zeros([batch_size(state)], norm_dtype(state))

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        before, count = memory
        scores = self.readout(state, weights, drives)
        # Not int32: of these TensorFlow keeps comparisons and loop variables on the host, and would
        # copy the predictions of each update from a GPU.
        prediction = tf.argmax(scores, axis=-1)
        same = tf.reduce_all(prediction == before, axis=range(1, prediction.shape.rank))
        count = tf.where(same, count + 1, 0)
        finite = samples_finite((scores, state))
        return not_a_number_where(~finite, count), (prediction, count)

    def goes_on(self, value: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        return value < threshold

    def unmet_value(self, threshold: tf.Tensor) -> tf.Tensor:
        return threshold - 1


@dataclasses.dataclass(frozen=True)
class ReadoutChange(StoppingRule):
    """Stop where an update hardly changes the probabilities of a readout.

    The value is the Kullback-Leibler divergence, in nats, of the softmax after an update from that
    before it, KL(after || before); with more axes than two the largest of all positions.

    Attributes:
        readout: A function from `(state, weights, drives)` to logits `[n, ..., classes]`.
    """

    readout: Callable[[State, tuple, tuple], tf.Tensor]
    reads_state = True

    def begin(self, state: State, weights: tuple, drives: tuple) -> Any:
        return self._log_probabilities(state, weights, drives)

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        after = self._log_probabilities(state, weights, drives)
        likely = tf.exp(after)
        # Logits may be minus infinity.
        terms = tf.where(likely > 0, likely * (after - memory), tf.zeros_like(likely))
        divergence = tf.reduce_sum(terms, axis=-1)
        # Rounding can make it negative.
        divergence = tf.maximum(divergence, 0)
        divergence = tf.reduce_max(divergence, axis=range(1, divergence.shape.rank))
        finite = samples_finite(state) & tf.math.is_finite(divergence)
        return not_a_number_where(~finite, divergence), after

    def _log_probabilities(self, state, weights, drives):
        scores = self.readout(state, weights, drives)
        return tf.nn.log_softmax(tf.cast(scores, norm_dtype(state)))


def not_a_number_where(condition: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return the values with NaN where the condition, bool `[n]`, holds."""
    return tf.where(condition, tf.constant(float("nan"), value.dtype), value)


UPDATE_NORM = UpdateNorm()
