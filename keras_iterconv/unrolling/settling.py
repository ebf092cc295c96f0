"""The term of the loss by which states learn to settle: the size of each sample's last update."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import State, samples_finite, select
from keras_iterconv.unrolling.stopping import StoppingRule
from keras_iterconv.unrolling.update import BoundUpdate, Update, masked


class LastStates(NamedTuple):
    """The state of a loop with that before its last update.

    Attributes:
        x: x(k), a structure of tensors `[N, ...]`.
        before: x(k - 1), a structure like x; x(0) before the first update.
    """

    x: State
    before: State


@dataclasses.dataclass(frozen=True)
class SettlingUpdate(Update):
    """An update of `LastStates`: a loss on both states is one on each sample's last update.

    The exact backward pass keeps of it what it keeps of the update itself. The change is that of x
    alone, so that norms and stopping rules measure what they measure without it.

    Attributes:
        inner: The update of x.
    """

    inner: Update
    without_settling = False

    @property
    def tied(self) -> bool:  # type: ignore[override]
        return self.inner.tied

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        return self.inner.whole_batch

    @property
    def couples_samples(self) -> bool:  # type: ignore[override]
        return self.inner.couples_samples

    @property
    def make_drives(self) -> Callable[..., tuple] | None:  # type: ignore[override]
        return self.inner.make_drives

    def step(
        self, state: State, k: tf.Tensor, weights: tuple, drives: tuple
    ) -> tuple[State, State]:
        x, change = self.inner.step(state.x, k, weights, drives)
        return LastStates(x, state.x), change

    def step_carrying(
        self, state: State, k: tf.Tensor, weights: tuple, drives: tuple, carried: tuple
    ) -> tuple[State, State, tuple]:
        x, change, carried = self.inner.step_carrying(state.x, k, weights, drives, carried)
        return LastStates(x, state.x), change, carried

    def begin_step(
        self, state: State, k: int | tf.Tensor, weights: tuple, drives: tuple
    ) -> tuple[State, Any, Callable[[], State]]:
        change, kept, complete = self.inner.begin_step(state.x, k, weights, drives)
        return change, kept, lambda: LastStates(complete(), state.x)

    def kept_specs(self, state: State) -> Any:
        return self.inner.kept_specs(state.x)

    def kept_before(self, state: State) -> Any:
        return self.inner.kept_before(state.x)

    def step_back(
        self,
        after: State,
        k: int | tf.Tensor,
        kept: Any,
        g: State,
        moved: tf.Tensor | None,
        weights: tuple,
        drives: tuple,
    ) -> tuple[State, State, list, list]:
        x, earlier, dweights, ddrives = self.inner.step_back(
            after.x, k, kept, g.x, moved, weights, drives
        )
        # The state before the update is the one that `g.before` belongs to.
        zeros = tf.nest.map_structure(tf.zeros_like, g.before)
        passed = g.before if moved is None else masked(moved, g.before, zeros)
        remaining = zeros if moved is None else masked(moved, zeros, g.before)
        earlier = tf.nest.map_structure(tf.add, earlier, passed)
        # No gradient depends on the value of `before`, so that it is not restored.
        return LastStates(x, after.before), LastStates(earlier, remaining), dweights, ddrives


@dataclasses.dataclass(frozen=True)
class RuleOfX(StoppingRule):
    """A stopping rule that is given `LastStates` and reads x.

    Attributes:
        rule: The rule for x.
    """

    rule: StoppingRule

    @property
    def reads_state(self) -> bool:  # type: ignore[override]
        return self.rule.reads_state

    def begin(self, state: State, weights: tuple, drives: tuple) -> Any:
        return self.rule.begin(state.x, weights, drives)

    def measure(
        self, change: State, state: State, memory: Any, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, Any]:
        # An empty tuple where the rule reads no state.
        x = state.x if isinstance(state, LastStates) else state
        return self.rule.measure(change, x, memory, weights, drives)

    def goes_on(self, value: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        return self.rule.goes_on(value, threshold)

    def unmet_value(self, threshold: tf.Tensor) -> tf.Tensor:
        return self.rule.unmet_value(threshold)


def with_last_states(update: BoundUpdate, state: State) -> tuple[BoundUpdate, LastStates]:
    """Return the update and the first state of a loop that ends at each sample's `LastStates`.

    Args:
        update: The update to repeat.
        state: x(0).

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(lambda x, k, weights, drives: -x, tanh, 0.5).bind()
        >>> update, first = ki.unrolling.with_last_states(update, tf.ones([1, 1]))
        >>> last = ki.unrolling.unroll_fixed(update, first, 2).state
        >>> [round(float(state[0, 0]), 3) for state in last]  # x(2), x(1)
        [0.344, 0.619]

    See also:
        `unrolling.settling_term`, of these states.
    """
    return update._replace(update=SettlingUpdate(update.update)), LastStates(state, state)


def settling_term(last: LastStates) -> tf.Tensor:
    """Return the mean over the samples of the squared 2-norm of the last update over that of x.

    It is zero for samples that are not finite and for an empty batch; masked positions are zeros in
    both states.

    Args:
        last: The last states x and those before them, structures of tensors `[N, ...]`.

    Example:
        >>> x, before = tf.constant([[3.0, 4.0]]), tf.constant([[3.0, 3.0]])
        >>> last = ki.unrolling.settling.LastStates(x, before)
        >>> round(float(ki.unrolling.settling_term(last)), 3)  # 1 / 25
        0.04

    See also:
        `unrolling.with_last_states`; `Iterate`, which adds it to the loss.
    """
    finite = samples_finite(last)
    moved, sizes = [], []
    for pair in zip(tf.nest.flatten(last.x), tf.nest.flatten(last.before), strict=True):
        # Zeros: the derivative of a sum with a NaN in it would be NaN also with a weight of zero.
        x, before = (select(finite, z, tf.zeros_like(z)) for z in pair)
        axes = range(1, x.shape.rank)
        moved.append(tf.reduce_sum(tf.square(x - before), axis=axes))
        sizes.append(tf.reduce_sum(tf.square(x), axis=axes))
    return mean_of_finite(tf.math.divide_no_nan(tf.add_n(moved), tf.add_n(sizes)))


def mean_of_finite(values: tf.Tensor) -> tf.Tensor:
    """Return the mean over the samples, with zero for those that are not finite.

    One such sample would make the whole loss NaN.
    """
    values = tf.where(tf.math.is_finite(values), values, tf.zeros_like(values))
    # Zero for an empty batch.
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))
