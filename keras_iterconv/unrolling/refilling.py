"""A loop of adaptive depth in which waiting samples take the places of those that have stopped."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.adaptive import measured_step
from keras_iterconv.unrolling.samples import any_size, comparable_threshold, norm_dtype, put
from keras_iterconv.unrolling.stopping import StoppingRule
from keras_iterconv.unrolling.trajectory import tensor_array
from keras_iterconv.unrolling.update import BoundUpdate, State

# Assumed cost of one refill, in updates of the whole batch; `python -m benchmarks.refill_cost`
# measures it.
REFILL_COST = 0.1


class Samples(NamedTuple):
    """Samples in the loop, or waiting for a place in it.

    Attributes:
        numbers: The samples' numbers in the data set, int64 `[n]`.
        k: The numbers of updates that they have made, int32 `[n]`.
        x: Their states, a structure of tensors `[n, ...]`.
        drives: Their drives, `[n, ...]` each.
        memory: What the stopping rule remembers of them, a structure of tensors `[n, ...]`.
    """

    numbers: tf.Tensor
    k: tf.Tensor
    x: State
    drives: tuple
    memory: Any


class Stopped(NamedTuple):
    """Samples that have stopped.

    Attributes:
        numbers: As in `Samples`.
        k: As in `Samples`.
        x: Their last states, a structure of tensors `[n, ...]`.
        values: What the stopping rule measured at their last updates, `[n]`.
    """

    numbers: tf.Tensor
    k: tf.Tensor
    x: State
    values: tf.Tensor


class _Rounds(NamedTuple):
    """The variables of the loop.

    Attributes:
        samples: The samples in the batch, active and stopped.
        active: Which of them have not stopped, bool `[n]`.
        taken: The number of waiting samples that have been taken in.
        waste: The number of updates computed for stopped samples since the last refill, summed
            over these samples, int32.
        updates: The number of updates of the batch.
        stopped: A `Stopped` of `tf.TensorArray`s, one entry for each update.
    """

    samples: Samples
    active: tf.Tensor
    taken: tf.Tensor
    waste: tf.Tensor
    updates: tf.Tensor
    stopped: Stopped


def run_refilled(
    update: BoundUpdate,
    samples: Samples,
    waiting: Samples,
    size: int | tf.Tensor,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor,
    rule: StoppingRule,
    min_unroll: int = 1,
    refill_cost: float = REFILL_COST,
) -> tuple[Samples, Stopped]:
    """Update samples until those waiting are taken in and it pays to take in more.

    Each sample makes the updates that `run_adaptive` makes of it. Waiting samples take the places
    of stopped ones once the updates wasted on these have cost as much as a refill. If samples stop
    at a constant rate, no other rule costs less.

    Args:
        update: The update to repeat, tied; its drives are not read.
        samples: The samples in the loop, at most `size`, none of them stopped.
        waiting: The samples that may enter, at x(0).
        size: The number of places, an int or an int32 scalar.
        max_unroll: The largest number of updates of a sample, an int or an int32 scalar.
        threshold: The stopping threshold, a number or a scalar tensor.
        rule: The stopping rule.
        min_unroll: The smallest number of updates of a sample whose values are finite.
        refill_cost: The cost of one refill, in updates of the whole batch.

    Returns:
        `(samples, stopped)`: the samples that are still in the loop, and those that have stopped.
    """
    first = tf.minimum(size - tf.size(samples.numbers), tf.size(waiting.numbers))
    batch = tf.nest.map_structure(
        lambda z, more: tf.concat([z, more[:first]], axis=0), samples, waiting
    )
    limit = comparable_threshold(threshold, norm_dtype(batch.x))
    loop = _Loop(update, waiting, max_unroll, min_unroll, limit, rule, refill_cost)
    arrays = tf.nest.map_structure(
        lambda z: tensor_array(z.dtype, [None, *z.shape[1:]]),
        Stopped(batch.numbers, batch.k, batch.x, tf.zeros([0], limit.dtype)),
    )
    zero = tf.constant(0)
    rounds = _Rounds(batch, tf.fill([tf.size(batch.k)], True), first, zero, zero, arrays)
    (rounds,) = tf.while_loop(
        loop.goes_on,
        lambda rounds: (loop.step(rounds),),
        (rounds,),
        (tf.nest.map_structure(any_size, rounds),),
    )
    active = tf.where(rounds.active)[:, 0]
    return (
        tf.nest.map_structure(lambda z: tf.gather(z, active), rounds.samples),
        tf.nest.map_structure(lambda array: array.concat(), rounds.stopped),
    )


class _Loop(NamedTuple):
    """The steps of `run_refilled`, with its arguments as attributes."""

    update: BoundUpdate
    waiting: Samples
    max_unroll: int | tf.Tensor
    min_unroll: int
    threshold: tf.Tensor
    rule: StoppingRule
    refill_cost: float

    def pays(self, rounds: _Rounds) -> tf.Tensor:
        """Return whether the next update would waste more than a refill costs."""
        size = tf.size(rounds.active)
        idle = size - tf.reduce_sum(tf.cast(rounds.active, tf.int32))
        waste = tf.cast(rounds.waste + idle, self.threshold.dtype)
        return (idle > 0) & (waste >= self.refill_cost * tf.cast(size, waste.dtype))

    def goes_on(self, rounds: _Rounds) -> tf.Tensor:
        """Return whether samples wait, or those in the batch go on without a refill."""
        some_wait = rounds.taken < tf.size(self.waiting.numbers)
        return some_wait | (tf.reduce_any(rounds.active) & ~self.pays(rounds))

    def step(self, rounds: _Rounds) -> _Rounds:
        """Refill the batch where it pays, and make one update of it."""
        refill = (rounds.taken < tf.size(self.waiting.numbers)) & self.pays(rounds)
        rounds = tf.cond(refill, lambda: self._refilled(rounds), lambda: rounds)
        samples, active = rounds.samples, rounds.active
        new, values, memory, _ = measured_step(
            self.update._replace(drives=samples.drives),
            self.rule,
            samples.x,
            tf.constant(0),
            samples.memory,
        )
        k = samples.k + 1
        moves = self.rule.goes_on(values, self.threshold)
        moves |= tf.math.is_finite(values) & (k < self.min_unroll)
        still = active & moves & (k < self.max_unroll)
        indices = tf.where(active & ~still)[:, 0]
        ends = Stopped(samples.numbers, k, new, values)
        stopped = tf.nest.map_structure(
            lambda array, z: array.write(rounds.updates, tf.gather(z, indices)),
            rounds.stopped,
            ends,
        )
        idle = tf.size(active) - tf.reduce_sum(tf.cast(active, tf.int32))
        return rounds._replace(
            samples=samples._replace(k=k, x=new, memory=memory),
            active=still,
            waste=rounds.waste + idle,
            updates=rounds.updates + 1,
            stopped=stopped,
        )

    def _refilled(self, rounds: _Rounds) -> _Rounds:
        """Return the batch with waiting samples in the places of stopped ones."""
        waiting = tf.size(self.waiting.numbers) - rounds.taken
        places = tf.where(~rounds.active)[:waiting, 0]
        end = rounds.taken + tf.size(places)
        samples = tf.nest.map_structure(
            lambda z, more: put(z, places, more[rounds.taken : end]), rounds.samples, self.waiting
        )
        active = put(rounds.active, places, tf.fill([tf.size(places)], True))
        return rounds._replace(samples=samples, active=active, taken=end, waste=tf.constant(0))
