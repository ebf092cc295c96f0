"""The update of training with a halting head: it also averages the states."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_iterconv.layers.layer_update import LayerUpdate
from keras_iterconv.unrolling import Update
from keras_iterconv.unrolling.samples import (
    batch_size,
    norm_dtype,
    per_sample,
    samples_finite,
    select,
)
from keras_iterconv.unrolling.update import State


@dataclasses.dataclass(frozen=True, eq=False)
class PonderUpdate(Update):
    """An update of a state with the mean of the states so far, weighted by the stopping.

    Its state is a dict: `"x"`, the state; `"mean"`, the sum of the states, each weighted by the
    probability of stopping there; `"left"`, the probability of not having stopped, `[N]`; and
    `"expected"`, the expected number of updates so far, `[N]`.

    Attributes:
        inner: The update of x.
        logit: A function from `(x, weights, drives)` to the logit of stopping at x, `[N]`.
        min_unroll: The number of updates before which the probability is zero.
    """

    inner: LayerUpdate
    logit: Callable[[State, tuple, tuple], tf.Tensor]
    min_unroll: int

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        return self.inner.whole_batch

    @property
    def couples_samples(self) -> bool:  # type: ignore[override]
        return self.inner.couples_samples

    def begin(self, state: State) -> dict[str, Any]:
        """Return the state at x(0)."""
        one = tf.ones([batch_size(state)], norm_dtype(state))
        zeros = tf.nest.map_structure(tf.zeros_like, state)
        return {"x": state, "mean": zeros, "left": one, "expected": tf.zeros_like(one)}

    def end(self, state: dict[str, Any]) -> State:
        """Return the mean of the states; the last state has the probability that is left.

        It is NaN for samples that are not finite, and their numbers enter no gradient: a zero
        gradient would be multiplied by them.
        """
        finite = samples_finite((state["mean"], state["x"], state["left"]))

        def finite_alone(z):
            return select(finite, z, tf.zeros_like(z))

        mean, left, x = (
            tf.nest.map_structure(finite_alone, state[key]) for key in ("mean", "left", "x")
        )
        return tf.nest.map_structure(
            lambda z: select(finite, z, tf.fill(tf.shape(z), tf.constant(math.nan, z.dtype))),
            _add(mean, left, x),
        )

    def step(self, state: Any, k: tf.Tensor, weights: tuple, drives: tuple) -> tuple:
        x, _ = self.inner.step(state["x"], k, weights, drives)
        return self._averaged(x, state, k, weights, drives)

    def step_carrying(
        self, state: Any, k: tf.Tensor, weights: tuple, drives: tuple, carried: tuple
    ) -> tuple:
        x, _, carried = self.inner.step_carrying(state["x"], k, weights, drives, carried)
        return *self._averaged(x, state, k, weights, drives), carried

    def _averaged(self, x, state, k, weights, drives):
        left = state["left"]
        p = tf.sigmoid(tf.cast(self.logit(x, weights, drives), left.dtype))
        p = tf.where(k + 1 < self.min_unroll, tf.zeros_like(p), p)
        new = {
            "x": x,
            "mean": _add(state["mean"], left * p, x),
            "left": left * (1 - p),
            "expected": state["expected"] + left,
        }
        return new, tf.nest.map_structure(tf.subtract, new, state)


def _add(total: State, weight: tf.Tensor, x: State) -> State:
    """Return the sum of a structure and the weighted samples of another."""
    return tf.nest.map_structure(
        lambda a, b: a + tf.cast(per_sample(weight, b), b.dtype) * b, total, x
    )
