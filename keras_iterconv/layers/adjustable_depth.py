"""The depth settings of blocks whose number of updates can change after they were built."""

import math
import numbers
from typing import Any

import tensorflow as tf

from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.layers.protocol import Block
from keras_iterconv.stop import StoppingRule, UpdateNorm
from keras_iterconv.unrolling import MODES, BoundUpdate, Unrolled
from keras_iterconv.unrolling.stopping import UPDATE_NORM
from keras_iterconv.unrolling.stopping import StoppingRule as UnrollingRule


class AdjustableDepth(Block):
    """Mixin of the blocks whose `max_unroll` and `threshold` can be set at any time.

    The values also lie in variables, so that a change takes effect in functions that are already
    traced.

    Attributes:
        stop: The stopping rule; None for the norm of the update.
        settling: The weight of the loss by which the states learn to settle; 0 for none.
    """

    adjustable = True
    stop: StoppingRule | None = None
    settling: float = 0.0
    # The number of updates from which on a stopping rule counts.
    min_unroll: int = 1

    @property
    def without_settling(self) -> bool:
        """Whether there is no loss on the last update."""
        return not self.settling

    @property
    def inexact_gradients(self) -> tuple[str, ...]:
        """The modes that `gradient` of this block can be set to and that are not exact."""
        return tuple(mode.name for mode in MODES.values() if not mode.exact and mode.fits(self))

    @property
    def stopping_rule(self) -> StoppingRule:
        """The rule by which samples stop; its own threshold is not that of the block."""
        return UpdateNorm(1.0) if self.stop is None else self.stop

    @property
    def threshold_is_norm(self) -> bool:
        """Whether the threshold is one of a norm, of which tenths and multiples make sense."""
        return isinstance(self.stopping_rule, UpdateNorm)

    @property
    def needs_threshold(self) -> str | None:
        """Why the block cannot do without a stopping threshold; None if it can."""
        return None

    @property
    def cannot_stream(self) -> str | None:
        """Why `predict_stream` cannot replace single samples in the block; None if it can."""
        if self.threshold is None:
            return "it has no stopping threshold: all samples make the same number of updates"
        if not self.tied:
            return "it is untied: samples at different updates would need different weights at once"
        return None

    def bind(
        self, state: Any, inputs: Any, mask: tf.Tensor | None = None
    ) -> tuple[BoundUpdate, UnrollingRule]:
        """Return the update in evaluation with its tensors, and the rule of the loops.

        Args:
            state: x(0), as `make_initial_state` returns it.
            inputs: The inputs of the block.
            mask: bool `[N, positions]`, or None.
        """
        inputs = tf.cast(inputs, self.compute_dtype)  # type: ignore[attr-defined]
        return self.build_update(inputs), UPDATE_NORM  # type: ignore[attr-defined]

    def as_outputs(self, unrolled: Unrolled, mask: tf.Tensor | None = None) -> Unrolled:
        """Return the end of a loop with what the block returns in place of its state.

        Args:
            unrolled: The end of the loop.
            mask: bool `[N, positions]`, or None.
        """
        dtype = self.compute_dtype  # type: ignore[attr-defined]
        state = tf.nest.map_structure(lambda z: tf.cast(z, dtype), unrolled.state)
        return unrolled._replace(state=state)

    def set_up_depth(self, max_unroll: int, threshold: float | None, tied: bool) -> None:
        """Create the variables, and set both values; `__init__` calls this method.

        Args:
            max_unroll: The number of updates, or the largest number.
            threshold: The stopping threshold, or None.
            tied: Whether all updates share one set of weights. Otherwise the block has weights for
                `max_unroll` updates.
        """
        with tf.init_scope():
            self._max_unroll_variable = tf.Variable(1, trainable=False, dtype=tf.int32)
            self._threshold_variable = tf.Variable(0, trainable=False, dtype=tf.float64)
        self.tied = bool(tied)
        self._weights_for = check_positive_int("max_unroll", max_unroll)
        self.max_unroll = max_unroll
        self.threshold = threshold

    @property
    def max_unroll(self) -> int:
        """The number of updates, or the largest number for a block with a threshold.

        It can be set at any time, also in a compiled model. An untied block has weights for as
        many updates as it was created with; its configuration keeps that number.
        """
        return self._max_unroll_value

    @max_unroll.setter
    def max_unroll(self, value: int) -> None:
        value = self.check_max_unroll(value)
        self._max_unroll_value = value
        self._max_unroll_variable.assign(value)

    def check_max_unroll(self, value: int) -> int:
        """Return a number of updates where the block can make it, else raise `ValueError`."""
        value = check_positive_int("max_unroll", value)
        if not self.tied and value > self._weights_for:
            raise ValueError(
                f"`max_unroll` of {self.name!r} must be at most {self._weights_for}: the block is "
                f"untied and has weights for no more updates. Received: max_unroll={value}"
            )
        return value

    def check_threshold(self, value: float) -> float:
        """Return a threshold as a float where the block can have it, else raise `ValueError`."""
        return self.stopping_rule.check_threshold(value)

    @property
    def threshold(self) -> float | None:
        """The stopping threshold; None for a fixed depth.

        A number can be replaced by another number at any time. Fixed and adaptive depth need
        different graphs: after a change between None and a number, compiled functions must be
        traced again, as `keras_iterconv.set_depth` does.
        """
        return self._threshold_value

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        if value is not None:
            value = self.check_threshold(value)
            self._threshold_variable.assign(value)
        elif self.needs_threshold is not None:
            raise ValueError(
                f"`threshold` must be a number {self.needs_threshold}. Received: threshold=None"
            )
        self._threshold_value = value

    @property
    def largest_unroll(self) -> int | None:
        """The number of updates that an untied block has weights for; None for a tied one."""
        return None if self.tied else self._weights_for

    @property
    def depth_variables(self) -> tuple[tf.Variable, tf.Variable]:
        """The variables of `max_unroll` and `threshold` in traced graphs; they are no weights."""
        return self._max_unroll_variable, self._threshold_variable

    def assign_folded(self, original: "AdjustableDepth") -> None:
        super().assign_folded(original)
        if self.adjustable:
            # The configuration of an untied block holds the number of updates with weights.
            self.max_unroll = original.max_unroll

    def depth_config(self) -> dict:
        """Return `max_unroll`, `threshold` and `tied` for `get_config`."""
        return {
            "max_unroll": self.max_unroll if self.tied else self._weights_for,
            "threshold": self.threshold,
            "tied": self.tied,
        }


def check_settling(value: Any) -> float:
    """Return the weight of the settling loss as a float where it is 0 or positive and finite.

    Raises:
        ValueError: It is not.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ValueError(f"`settling` must lie in [0, inf). Received: settling={value!r}")
    return float(value)
