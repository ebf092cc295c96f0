"""Anderson acceleration of the adaptive loop, with the plain loop as fallback.

It is for tied updates with tanh, which have exactly one fixed point for each sample. So both loops
end at the same state, up to the stopping threshold.
"""

from typing import Any

import tensorflow as tf

from keras_iterconv.unrolling.adaptive import run_adaptive
from keras_iterconv.unrolling.anderson_loop import run_anderson
from keras_iterconv.unrolling.gradients.backward import masked_backward
from keras_iterconv.unrolling.gradients.exact import walk_back
from keras_iterconv.unrolling.gradients.implicit import IMPLICIT
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.samples import (
    comparable_threshold,
    put,
)
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import BoundUpdate

SOLVERS = ("picard", "anderson")


def check_anderson(update: Any) -> None:
    """Raise `ValueError` where an update, or a block, is not one that Anderson acceleration is for.

    The gradient of a converged sample is the implicit one, with its needs; it is for evaluation
    alone, where nothing settles.

    Args:
        update: An `Update`, or a block; anything with `tied`, `linear` and `two_sided`.

    Example:
        >>> ki.unrolling.check_anderson(ki.NAISDense(8, activation="tanh"))  # no error

    See also:
        `unrolling.unroll_anderson`; `NAISDense`.
    """
    if all(getattr(update, need) for need in IMPLICIT.needs if need != "without_settling"):
        return
    raise ValueError(
        '`solver="anderson"` needs `activation="tanh"` and `tied=True`, and an update '
        "x + h tanh(...) whose pre-activation is linear in the state, as `linear=True` states: "
        'only then there is exactly one fixed point for each input. Use `solver="picard"`. '
        f"Received: tied={update.tied}, two_sided={update.two_sided}, linear={update.linear}"
    )


def unroll_anderson(
    update: BoundUpdate, state: tf.Tensor, max_unroll: int | tf.Tensor, threshold: float | tf.Tensor
) -> Unrolled:
    """Find the fixed point of each sample's update by Anderson acceleration.

    The loop evaluates the update h sigma(...) of each sample at a sequence of states. The next
    state is either the plain one, x + h sigma(...), or the accelerated one, at which the norm of
    the update would be smallest if the update were affine through the last states. An accelerated
    state is accepted only if its update has a smaller 2-norm than the update of the state before;
    otherwise the plain step from the state before follows. A sample has converged at the first
    state whose update has a 2-norm below `threshold`; that update is made and counted.

    A sample that has not converged after `max_unroll` evaluations gets the result of
    `unroll_adaptive`, from x(0) on. So each sample ends either with an update below the threshold
    or at the state at which the plain loop ends.

    Args:
        update: The update to repeat, an `EulerUpdate`: tied, linear, contracting, with a two-sided
            activation.
        state: The initial state x(0), `[N, ...]`, float32 or float64.
        max_unroll: The largest number of evaluations of a sample, and the largest number of
            updates of the plain loop; an int or an int32 scalar.
        threshold: The stopping threshold, a norm in units of the state.

    Returns:
        An `Unrolled`. Its depth counts all evaluations, also those of rejected states and of both
        loops: up to twice `max_unroll`. Where a sample converged, the gradient is that of the
        fixed point, taken at the last state; elsewhere it is the exact gradient of the plain loop.

    Raises:
        ValueError: The update is not tied, linear and two-sided.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(
        ...     lambda x, k, weights, drives: 1 - x, tanh, 0.2, linear=True
        ... ).bind()
        >>> state, threshold = tf.constant([[0.0, 3.0]]), 1e-4
        >>> plain = ki.unrolling.unroll_adaptive(update, state, 200, threshold)
        >>> accelerated = ki.unrolling.unroll_anderson(update, state, 200, threshold)
        >>> int(plain.depth[0]), bool(accelerated.depth[0] < 20)
        (42, True)

    Reference:
        Walker and Ni 2011, "Anderson acceleration for fixed-point iterations"; type II, mixing 1.

    See also:
        `unrolling.unroll_adaptive`; `unrolling.check_anderson`; `NAISDense`, which has it as a
        solver.
    """
    check_anderson(update.update)

    @tf.custom_gradient
    def forward(state, *tensors):
        with_drives = update.with_tensors(tensors).with_drives()
        end, depth, norm = run_anderson(with_drives, state, max_unroll, threshold)
        converged = norm < comparable_threshold(threshold, norm.dtype)
        # The first two states are those of the plain loop: a sample that stopped there is done.
        plain_indices = tf.where(~converged & (depth > 2))[:, 0]

        def run_plain():
            plain = run_adaptive(
                with_drives.on(plain_indices),
                tf.gather(state, plain_indices),
                max_unroll,
                threshold,
            )
            total_depth = tf.gather(depth, plain_indices) + plain.depth
            return (
                put(end, plain_indices, plain.state),
                put(depth, plain_indices, total_depth),
                put(norm, plain_indices, plain.value),
            )

        ends = tf.cond(tf.size(plain_indices) > 0, run_plain, lambda: (end, depth, norm))

        def loop_backward(update, states, g, live):
            start, end = states
            return _gradients(update, start, end, converged, max_unroll, threshold, g, live)

        def backward(g, *_):
            return masked_backward(loop_backward, update, tensors, [state, ends[0]], g)

        return list(ends), backward

    state, depth, norm = forward(state, *update.tensors)
    return Unrolled.adaptive(state, depth, norm, threshold)


def _gradients(update, start, end, converged, max_unroll, threshold, g, live):
    """Return each sample's gradients: of its fixed point if it converged, else of the plain loop.

    Args:
        update: The update, its drives computed.
        start: The first states, `[N, ...]`.
        end: The last states, `[N, ...]`.
        converged: Which samples converged in the accelerated loop, bool `[N]`.
        max_unroll: The largest number of updates of the plain loop.
        threshold: The stopping threshold.
        g: The upstream gradient, `[N, ...]`.
        live: Which samples have an upstream gradient, bool `[N]`.

    Returns:
        `(state's, weights', drives')`: a tensor and two lists.
    """
    converged_indices, plain_indices = (
        tf.where(chosen)[:, 0] for chosen in (converged, ~converged)
    )
    # The implicit gradient reads the last state only.
    point = Trajectory(None, tf.gather(end, converged_indices), None, None, None, None, None)
    of_fixed_point = IMPLICIT.backward(
        update.on(converged_indices), None, point, tf.gather(g, converged_indices), None
    )
    plain_update = update.on(plain_indices)
    loop = run_adaptive(
        plain_update, tf.gather(start, plain_indices), max_unroll, threshold, keep=True
    )
    of_plain_loop = walk_back(
        plain_update, loop, tf.gather(g, plain_indices), tf.gather(live, plain_indices)
    )

    def merge(whole, converged_samples, plain_samples):
        merged = put(tf.zeros_like(whole), converged_indices, converged_samples)
        return put(merged, plain_indices, plain_samples)

    return (
        merge(start, of_fixed_point[0], of_plain_loop[0]),
        [a + b for a, b in zip(of_fixed_point[1], of_plain_loop[1], strict=True)],
        list(map(merge, update.drives, of_fixed_point[2], of_plain_loop[2])),
    )
