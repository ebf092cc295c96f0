"""Anderson acceleration of the adaptive loop, with the plain loop to fall back on.

For tied updates with tanh, whose fixed point is one for each sample: where the loop gets to does
not depend on how it goes there. Both loops end at the same state, up to the threshold.
"""

import tensorflow as tf

from keras_iterconv.unrolling.adaptive import run_adaptive
from keras_iterconv.unrolling.gradients.backward import pull_back_through
from keras_iterconv.unrolling.gradients.exact import walk_back
from keras_iterconv.unrolling.gradients.implicit import implicit
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.samples import (
    any_size,
    comparable_threshold,
    put,
    sample_norms,
    samples_finite,
    select,
)
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import Update

SOLVERS = ("picard", "anderson")

# How many differences of states, and of their updates, a step is fitted to.
HISTORY = 5
# Added to the squares of differences of length one. Single precision rounds their products at 1e-7.
REGULARIZATION = 1e-6


def unroll_anderson(update: Update, state: tf.Tensor, max_unroll, threshold) -> Unrolled:
    """Look for the state where each sample's update is small, by Anderson acceleration.

    A sample evaluates its update h sigma(...) at one state after another. The next state is
    either the plain one, x + h sigma(x), or the accelerated one, where the update would be
    smallest were it linear through the last states. An accelerated state is kept only where its
    update has a smaller 2-norm than that of the state before; otherwise the plain step from
    there follows. A sample has settled at the first state whose update has a 2-norm below
    `threshold`; that update is made and counted.

    A sample that has not settled after `max_unroll` evaluations is started again and gets what
    `unroll_adaptive` gives it. So each sample ends either with an update below the threshold, or
    where the plain loop ends: where that has not settled, never with a larger update.

    Args:
        update: What to repeat: tied, with a two-sided activation, and contracting.
        state: The initial state x(0), `[N, ...]`, float32 or float64.
        max_unroll: The largest number of evaluations, and again of updates of a sample that
            starts again; an int or an int32 scalar.
        threshold: The norm under which a sample counts as settled, in units of the state.

    Returns:
        An `Unrolled`. Its depth counts all evaluations, those of states that were not kept and of
        both attempts too: up to twice `max_unroll`. Where a sample settled, the gradient is that
        of the fixed point, and as near to it as the state is; elsewhere it is the exact one of the
        updates made.

    Reference:
        Walker and Ni 2011, "Anderson acceleration for fixed-point iterations"; type II, mixing 1.
    """

    @tf.custom_gradient
    def forward(state, *tensors):
        own = update.with_tensors(tensors).with_drives()
        end, depth, norm = run_anderson(own, state, max_unroll, threshold)
        settled = norm < comparable_threshold(threshold, norm.dtype)
        # The first two states are the plain loop's own: an end there is its end.
        rows = tf.where(~settled & (depth > 2))[:, 0]

        def start_again():
            plain = run_adaptive(own.on(rows), tf.gather(state, rows), max_unroll, threshold)
            spent = tf.gather(depth, rows) + plain.depth
            return put(end, rows, plain.state), put(depth, rows, spent), put(norm, rows, plain.norm)

        ends = tf.cond(tf.size(rows) > 0, start_again, lambda: (end, depth, norm))

        def pull(update, states, g, live):
            return _pull_back(update, *states, settled, max_unroll, threshold, g, live)

        def backward(g, *_):
            return pull_back_through(pull, update, tensors, [state, ends[0]], g)

        return list(ends), backward

    state, depth, norm = forward(state, *update.tensors)
    return Unrolled.adaptive(state, depth, norm, threshold)


def run_anderson(update: Update, state: tf.Tensor, max_unroll, threshold):
    """Accelerate each sample until it settles, is not finite, or has evaluated `max_unroll` times.

    Args:
        update: What to repeat.
        state: x(0), `[N, ...]`.
        max_unroll: The largest number of evaluations, an int or an int32 scalar.
        threshold: A scalar tensor.

    Returns:
        `(state, depth, norm)`: each sample's last state with its update made, the evaluations,
        int32 `[N]`, and the 2-norm of the last one's update, `[N]`.
    """
    samples = tf.shape(state)[0]
    dtype = tf.float64 if state.dtype == tf.float64 else tf.float32
    threshold = comparable_threshold(threshold, dtype)

    def step(k, end, depth, last, rows, drives, x, f, norm, trial, accelerated, moves, changes):
        part = update._replace(drives=drives)
        trial_f = part.change(part.value(trial, k), x.dtype)
        trial_norm = sample_norms(trial_f)
        finite = tf.math.is_finite(trial_norm)
        kept = (trial_norm < norm) | ~accelerated
        stops = (trial_norm < threshold) | ~(finite | accelerated) | (k + 1 >= max_unroll)

        stopped = tf.where(stops)[:, 0]
        places = tf.gather(rows, stopped)
        end = put(end, places, tf.gather(trial + trial_f, stopped))
        depth = put(depth, places, tf.fill(tf.shape(places), k + 1))
        last = put(last, places, tf.gather(trial_norm, stopped))

        # Rejected states also enter the history. The first state has none before it.
        teaches = finite & (k > 0)
        moves = _remember(moves, teaches, trial - x)
        changes = _remember(changes, teaches, trial_f - f)
        x, f = select(kept, trial, x), select(kept, trial_f, f)
        norm = tf.where(kept, trial_norm, norm)

        # Each step costs several times what leaving a sample out does.
        left = tf.where(~stops)[:, 0]
        held = (rows, drives, x, f, norm, kept, moves, changes)
        rows, drives, x, f, norm, kept, moves, changes = tf.cond(
            tf.size(stopped) > 0,
            lambda: tf.nest.map_structure(lambda z: tf.gather(z, left), held),
            lambda: held,
        )
        trial, accelerated = _next_state(x, f, moves, changes)
        accelerated &= kept
        trial = select(accelerated, trial, x + f)
        return k + 1, end, depth, last, rows, drives, x, f, norm, trial, accelerated, moves, changes

    flat = tf.reshape(state, [samples, 1, tf.reduce_prod(tf.shape(state)[1:])])
    none = tf.zeros_like(tf.repeat(flat, HISTORY, axis=1))
    variables = (
        tf.constant(0),
        state,
        tf.zeros([samples], tf.int32),
        tf.zeros([samples], dtype),
        tf.range(samples),
        update.drives,
        state,
        tf.zeros_like(state),
        tf.zeros([samples], dtype),
        state,
        tf.zeros([samples], tf.bool),
        none,
        none,
    )
    _, end, depth, norm, *_ = tf.while_loop(
        lambda k, end, depth, last, rows, *others: tf.size(rows) > 0,
        step,
        variables,
        tf.nest.map_structure(any_size, variables),
    )
    return tf.ensure_shape(end, state.shape), depth, norm


def _next_state(x, f, moves, changes):
    """Return the accelerated states, and where they are other states than x + f, bool `[n]`.

    Args:
        x: The states, `[n, ...]`.
        f: Their updates.
        moves: Differences of states, `[n, HISTORY, size]`.
        changes: Those of the updates, from state to state.
    """
    lengths = tf.norm(changes, axis=2, keepdims=True)
    known = lengths > 0
    lengths = tf.where(known, lengths, 1)
    changes, moves = changes / lengths, moves / lengths
    flat = tf.reshape(f, [tf.shape(f)[0], tf.shape(changes)[2], 1])
    products = tf.matmul(changes, changes, transpose_b=True)
    products += REGULARIZATION * tf.eye(HISTORY, dtype=f.dtype)
    weights = _solve(products, tf.matmul(changes, flat))
    step = flat - tf.matmul(moves + changes, weights, transpose_a=True)
    trial = x + tf.reshape(step, tf.shape(f))
    return trial, samples_finite(trial) & tf.reduce_any(known, axis=[1, 2])


def _solve(matrices, values):
    """Solve positive definite systems `[n, m, m]` by elimination.

    `tf.linalg.solve` raises an error for the whole batch where one of them is singular; here that
    one's solution is not finite.
    """
    rows = tf.concat([matrices, values], axis=2)
    for i in range(matrices.shape[1]):
        pivot = rows[:, i : i + 1] / rows[:, i : i + 1, i : i + 1]
        others = rows - rows[:, :, i : i + 1] * pivot
        rows = tf.concat([others[:, :i], pivot, others[:, i + 1 :]], axis=1)
    return rows[:, :, -1:]


def _remember(history, teaches, difference):
    """Put a difference before the others, zeros where it teaches nothing, and drop the last."""
    difference = select(teaches, difference, tf.zeros_like(difference))
    newest = tf.reshape(difference, tf.shape(history[:, :1]))
    return tf.concat([newest, history[:, :-1]], axis=1)


def _pull_back(update, start, end, settled, max_unroll, threshold, g, live):
    """Return the gradients: of the fixed point where a sample settled, else of the plain loop."""
    at, again = (tf.where(chosen)[:, 0] for chosen in (settled, ~settled))
    # All that `implicit` reads is the state.
    point = Trajectory(None, tf.gather(end, at), None, None, None, None, None)
    fixed = implicit(update.on(at), point, tf.gather(g, at))
    part = update.on(again)
    loop = run_adaptive(part, tf.gather(start, again), max_unroll, threshold, keep=True)
    walked = walk_back(part, loop, tf.gather(g, again), tf.gather(live, again))

    def merge(whole, a, b):
        return put(put(tf.zeros_like(whole), at, a), again, b)

    return (
        merge(start, fixed[0], walked[0]),
        [a + b for a, b in zip(fixed[1], walked[1], strict=True)],
        list(map(merge, update.drives, fixed[2], walked[2])),
    )
