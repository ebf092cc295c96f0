"""The loops as differentiable functions: which gradient goes with them."""

import tensorflow as tf

from keras_iterconv.unrolling.adaptive import COMPACTION_COST, run_adaptive
from keras_iterconv.unrolling.fixed import run_fixed
from keras_iterconv.unrolling.gradients import MODES
from keras_iterconv.unrolling.gradients.backward import pull_back_through
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.update import Update


def unroll_fixed(
    update: Update, state: tf.Tensor, max_unroll, gradient: str = "unroll"
) -> Unrolled:
    """Make exactly `max_unroll` updates.

    Args:
        update: What to repeat. Gradients reach its weights and drives, and nothing else that its
            transfer reads.
        state: The initial state x(0), `[N, ...]`, float32 or float64.
        max_unroll: The number of updates, at least 1; an int or an int32 scalar.
        gradient: How the backward pass runs, a name in `gradients.MODES`.

    Returns:
        An `Unrolled` with a depth of `max_unroll` for each sample.

    Reference:
        Ciccone et al. 2018, Eq. 2 (the step h is part of the update).
    """

    def run(update, state, keep):
        return run_fixed(update, state, max_unroll, keep)

    state, _, _ = _differentiable(run, update, state, gradient)
    return Unrolled.fixed(state, max_unroll)


def unroll_adaptive(
    update: Update,
    state: tf.Tensor,
    max_unroll,
    threshold,
    gradient: str = "unroll",
    compaction_cost: float = COMPACTION_COST,
) -> Unrolled:
    """Update each sample until its own update is small, at most `max_unroll` times.

    A sample stops after the first update whose 2-norm, over the sample's whole state, is below
    `threshold`; that update is made and counted. A sample that has stopped keeps its state while
    the others go on, so its result does not depend on them. A sample whose update has no finite
    norm stops too: it would never converge.

    Args:
        update: What to repeat, as for `unroll_fixed`.
        state: The initial state x(0), `[N, ...]`, float32 or float64.
        max_unroll: The largest number of updates, at least 1; an int or an int32 scalar.
        threshold: The norm under which a sample counts as settled, in units of the state.
        gradient: As for `unroll_fixed`.
        compaction_cost: The assumed cost of removing stopped samples from the batch, in updates of
            the active samples.

    Returns:
        An `Unrolled`. Gradients flow through the updates that were made; the depth is constant
        to them.

    Reference:
        Ciccone et al. 2018, section 5.3.
    """

    def run(update, state, keep):
        return run_adaptive(update, state, max_unroll, threshold, keep, compaction_cost)

    state, depth, norm = _differentiable(run, update, state, gradient)
    return Unrolled.adaptive(state, depth, norm, threshold)


def _differentiable(run, update: Update, state: tf.Tensor, gradient: str):
    """Run a loop, and give it the gradient of a mode.

    Args:
        run: Maps `(update, state, keep)` to a `Trajectory`.
        update: What to repeat.
        state: x(0).
        gradient: The mode's name.

    Returns:
        `(state, depth, norm)`, the norm None where the loop has none.
    """
    mode = MODES[gradient]
    mode.check(update)

    @tf.custom_gradient
    def forward(state, *tensors):
        trajectory = run(update.with_tensors(tensors).with_drives(), state, mode.keeps_values)

        def pull(update, states, g, live):
            start, end = states
            return mode.backward(update, run, trajectory._replace(start=start, state=end), g, live)

        def backward(g, *_):
            return pull_back_through(pull, update, tensors, [state, trajectory.state], g)

        ends = [trajectory.state, trajectory.depth]
        return ends if trajectory.norm is None else [*ends, trajectory.norm], backward

    state, depth, *norm = forward(state, *update.tensors)
    return state, depth, norm[0] if norm else None
