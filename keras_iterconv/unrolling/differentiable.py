"""The loops of fixed and adaptive depth as differentiable functions."""

from collections.abc import Callable

import tensorflow as tf

from keras_iterconv._support.checks import check_choice
from keras_iterconv.unrolling.adaptive import COMPACTION_COST, run_adaptive
from keras_iterconv.unrolling.fixed import run_fixed
from keras_iterconv.unrolling.gradients import GRADIENTS, MODES, GradientMode
from keras_iterconv.unrolling.gradients.backward import masked_backward
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.stopping import UPDATE_NORM, StoppingRule
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import BoundUpdate, State
from keras_iterconv.unrolling.whole_batch import run_whole_batch


def unroll_fixed(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    gradient: str | GradientMode = "unroll",
) -> Unrolled:
    """Make exactly `max_unroll` updates.

    Args:
        update: The update to repeat. Gradients reach its weights, drives and drive inputs, but no
            other tensor that its step reads.
        state: The initial state x(0), a tensor `[N, ...]` or a structure of them, float32 or
            float64.
        max_unroll: The number of updates, at least 1; an int or an int32 scalar.
        gradient: The gradient mode: one of `GRADIENTS`, or a `GradientMode`.

    Returns:
        An `Unrolled` with a depth of `max_unroll` for each sample.

    Raises:
        ValueError: There is no such gradient mode, or the update does not have a property that the
            mode needs.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(lambda x, k, weights, drives: -x, tanh, 0.5).bind()
        >>> unrolled = ki.unrolling.unroll_fixed(update, tf.ones([1, 1]), 2)
        >>> round(float(unrolled.state[0, 0]), 3), unrolled.depth.numpy().tolist()
        (0.344, [2])

    Reference:
        Ciccone et al. 2018, Eq. 2 (the step h is part of the update).

    See also:
        `unrolling.unroll_adaptive`, which stops; `unrolling.unroll_states`, which keeps all states;
        `NAISDense`; `Iterate`.
    """

    def run(update, state, keep):
        return run_fixed(update, state, max_unroll, keep)

    state, _, _, _ = _differentiable(run, update, state, gradient)
    return Unrolled.fixed(state, max_unroll)


def unroll_adaptive(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor,
    gradient: str | GradientMode = "unroll",
    compaction_cost: float = COMPACTION_COST,
    rule: StoppingRule = UPDATE_NORM,
    min_unroll: int = 1,
) -> Unrolled:
    """Update each sample until its stopping rule is met.

    By the default rule a sample stops after the first update whose change has a 2-norm, over the
    sample's whole state, below `threshold`; that update is made and counted. A stopped sample
    keeps its state while the active samples are updated, so its result does not depend on them.
    A sample also stops where what the rule measures is not finite, since it cannot converge, and
    after `max_unroll` updates.

    Args:
        update: The update to repeat, as for `unroll_fixed`.
        state: The initial state x(0), a tensor `[N, ...]` or a structure of them, float32 or
            float64.
        max_unroll: The largest number of updates, at least 1; an int or an int32 scalar.
        threshold: The stopping threshold, in the units of the rule; for the default rule a norm
            in units of the state.
        gradient: As for `unroll_fixed`.
        compaction_cost: The assumed cost of removing stopped samples from the batch, in updates of
            the active samples.
        rule: The stopping rule. No gradient flows through what it measures.
        min_unroll: The number of updates from which on the rule counts; before, a sample stops
            only where a value is not finite.

    Returns:
        An `Unrolled`. Gradients flow through the updates that were made; the depth counts as a
        constant.

    Raises:
        ValueError: There is no such gradient mode, or the update does not have a property that the
            mode needs.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(lambda x, k, weights, drives: -x, tanh, 0.5).bind()
        >>> state = tf.constant([[0.01], [1.0], [10.0]])
        >>> unrolled = ki.unrolling.unroll_adaptive(update, state, 100, threshold=0.01)
        >>> unrolled.depth.numpy().tolist()
        [1, 8, 26]

    Reference:
        Ciccone et al. 2018, section 5.3.

    See also:
        `unrolling.unroll_fixed`; `unrolling.unroll_anderson`, which needs fewer evaluations;
        `unrolling.Status`; `stop.UpdateNorm`.
    """

    def run(update, state, keep):
        return run_adaptive(
            update,
            state,
            max_unroll,
            threshold,
            keep,
            compaction_cost,
            rule,
            min_unroll,
        )

    state, depth, value, _ = _differentiable(run, update, state, gradient)
    return Unrolled.adaptive(state, depth, value, threshold, rule, min_unroll)


def unroll_whole_batch(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor | None,
    gradient: str | GradientMode = "unroll",
    rule: StoppingRule = UPDATE_NORM,
    min_unroll: int = 1,
) -> tuple[Unrolled, tuple]:
    """Repeat an update that needs the whole batch, which is never compacted.

    Args:
        update: The update to repeat, as for `unroll_fixed`.
        state: The initial state x(0), as for `unroll_fixed`.
        max_unroll: The largest number of updates, at least 1; an int or an int32 scalar.
        threshold: The stopping threshold, as for `unroll_adaptive`; None for exactly `max_unroll`
            updates.
        gradient: As for `unroll_fixed`.
        rule: As for `unroll_adaptive`.
        min_unroll: As for `unroll_adaptive`.

    Returns:
        An `Unrolled`, and what the updates carried, `BoundUpdate.carried`, after the last of them.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(lambda x, k, weights, drives: -x, tanh, 0.5).bind()
        >>> unrolled, carried = ki.unrolling.unroll_whole_batch(update, tf.ones([1, 1]), 100, 0.01)
        >>> unrolled.depth.numpy().tolist(), carried
        ([8], ())

    See also:
        `unrolling.unroll_adaptive`, which removes stopped samples; `unrolling.unroll_states`.
    """

    def run(update, state, keep):
        return run_whole_batch(update, state, max_unroll, threshold, keep, rule, min_unroll)

    state, depth, value, carried = _differentiable(run, update, state, gradient)
    if threshold is None:
        return Unrolled.fixed(state, max_unroll), carried
    return Unrolled.adaptive(state, depth, value, threshold, rule, min_unroll), carried


def _differentiable(
    run: Callable[..., Trajectory], update: BoundUpdate, state: State, gradient: str | GradientMode
) -> tuple:
    """Run a loop whose backward pass is that of a gradient mode.

    Args:
        run: The loop, a function from `(update, state, keep)` to a `Trajectory`.
        update: The update to repeat.
        state: x(0), a structure of tensors `[N, ...]`.
        gradient: The mode or its name.

    Returns:
        `(state, depth, value, carried)`, as in `Trajectory`; the value is None for a loop of fixed
        depth.
    """
    mode = gradient
    if isinstance(mode, str):
        mode = MODES[check_choice("gradient", mode, GRADIENTS)]
    mode.check(update.update)
    leaves = tf.nest.flatten(state)
    dtypes = [tf.as_dtype(leaf.dtype) for leaf in leaves]
    if not all(dtype.is_floating for dtype in dtypes):
        raise ValueError(
            "`state` must hold tensors of floating-point numbers; cast them. "
            f"Received: state of dtypes {[dtype.name for dtype in dtypes]}"
        )

    # TensorFlow takes and returns the gradients of flat lists of tensors.
    @tf.custom_gradient
    def forward(*flat):
        start = tf.nest.pack_sequence_as(state, flat[: len(leaves)])
        tensors = flat[len(leaves) :]
        bound = update.with_tensors(tensors).with_drives()
        trajectory = run(bound, start, mode.keeps_tensors)

        def loop_backward(update, states, g, live):
            start, end = states
            return mode.backward(update, run, trajectory._replace(start=start, state=end), g, live)

        def backward(*upstream):
            g = tf.nest.pack_sequence_as(state, upstream[: len(leaves)])
            return masked_backward(loop_backward, update, tensors, [start, trajectory.state], g)

        values = [] if trajectory.value is None else [trajectory.value]
        ends = [*tf.nest.flatten(trajectory.state), trajectory.depth, *trajectory.carried, *values]
        return ends, backward

    ends = forward(*leaves, *update.tensors)
    end, (depth, *others) = ends[: len(leaves)], ends[len(leaves) :]
    carried, values = others[: len(update.carried)], others[len(update.carried) :]
    value = values[0] if values else None
    return tf.nest.pack_sequence_as(state, end), depth, value, tuple(carried)
