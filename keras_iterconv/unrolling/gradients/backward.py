"""What all backward passes share: when they start, and which samples they leave out."""

import tensorflow as tf

from keras_iterconv._support.dense_gradients import dense
from keras_iterconv.unrolling.samples import select
from keras_iterconv.unrolling.update import Update


def pull_back_through(pull, update: Update, tensors, states: list[tf.Tensor], g) -> list:
    """Return the gradients of a loop in its first state and in the tensors of its update.

    A sample whose upstream gradient is zero, since its loss is masked out, adds nothing: where
    its state is not finite, zero times it would be NaN in the gradients of all weights.

    Args:
        pull: Maps `(update, states, g, live)` to `(state's, weights', drives')`, the update with
            its drives made; live, bool `[N]`, says which samples have an upstream gradient. The
            states and drives of the others are zeros.
        update: What the loop repeated.
        tensors: The tensors that the update depends on.
        states: The first and the last state, each `[N, ...]`.
        g: The upstream gradient, `[N, ...]`, or slices of it.

    Returns:
        A list: the first state's gradient, and one for each of the tensors.
    """
    g = dense(g, states[0])
    # Nothing of the backward pass runs before it has come to this block: the executor would run
    # ahead with what does not depend on g, and hold the states of all blocks.
    with tf.control_dependencies([g]):
        late = update.with_tensors([tf.identity(tensor) for tensor in tensors])
        live = tf.reduce_any(g != 0, axis=range(1, g.shape.rank))
        late, states = _without_others(live, late, [tf.identity(state) for state in states])
        with tf.GradientTape() as tape:
            tape.watch(late.drive_inputs)
            driven = late.with_drives()
        dstate, dweights, ddrives = pull(driven, states, g, live)
    if late.make_drives is not None:
        ddrives = tape.gradient(
            driven.drives,
            late.drive_inputs,
            output_gradients=ddrives,
            # The drives of no samples may depend on nothing.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
    return [dstate, *dweights, *ddrives]


def _without_others(live, update, states):
    """Put zeros for the other samples into states, drives and the inputs that drives come from."""
    batches = (states, update.drives, update.drive_inputs[:1])
    # One test for each block; a pass over the batch only where some sample is left out.
    states, drives, inputs = tf.cond(
        tf.reduce_all(live),
        lambda: tf.nest.map_structure(tf.identity, batches),
        lambda: tf.nest.map_structure(lambda z: select(live, z, tf.zeros_like(z)), batches),
    )
    return update._replace(drives=drives, drive_inputs=(*inputs, *update.drive_inputs[1:])), states
