"""The steps that all backward passes share: delaying the start, and masking samples."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_iterconv._support.dense_gradients import dense
from keras_iterconv.unrolling.samples import select
from keras_iterconv.unrolling.update import BoundUpdate, State


def masked_backward(
    loop_backward: Callable,
    update: BoundUpdate,
    tensors: Sequence[tf.Tensor],
    states: list,
    g: State,
) -> list:
    """Return the gradients of a loop in its first state and in the tensors of its update.

    A sample whose upstream gradient is zero, since its loss is masked out, contributes nothing.
    Without the mask, a state that is not finite would be multiplied by that zero, and the product,
    NaN, would spread to the gradients of all weights.

    Args:
        loop_backward: The backward pass of the loop, a function from `(update, states, g, live)`
            to `(state's, weights', drives')`. Its update has its drives computed; live, bool `[N]`,
            marks the samples with an upstream gradient. The states and drives of the other samples
            are zero.
        update: The update that the loop repeated.
        tensors: The tensors that the update depends on, `BoundUpdate.tensors`.
        states: The first and the last state, a tensor `[N, ...]` or a structure of them each.
        g: The upstream gradient, a structure like the state, of tensors or `tf.IndexedSlices`.

    Returns:
        A list: the gradients in the tensors of the first state, and one for each of `tensors`.
    """
    g = tf.nest.map_structure(dense, g, states[0])
    # Without this control dependency, the executor would run the operations of all blocks that do
    # not depend on g first, and hold the states of all blocks in memory.
    with tf.control_dependencies(tf.nest.flatten(g)):
        delayed = update.with_tensors([tf.identity(tensor) for tensor in tensors])
        live = _any_gradient(g)
        if update.update.couples_samples:
            # A sample without a loss of its own acts on the others.
            live = tf.ones_like(live)
        states = tf.nest.map_structure(tf.identity, states)
        delayed, states = _without_others(live, delayed, states)
        with tf.GradientTape() as tape:
            tape.watch(delayed.drive_inputs)
            with_drives = delayed.with_drives()
        dstate, dweights, ddrives = loop_backward(with_drives, states, g, live)
    if delayed.drive_inputs:
        ddrives = tape.gradient(
            with_drives.drives,
            delayed.drive_inputs,
            output_gradients=ddrives,
            # The drives of an empty batch may not depend on the drive inputs.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
    return [*tf.nest.flatten(dstate), *dweights, *ddrives]


def _any_gradient(g: State) -> tf.Tensor:
    """Return which samples have a gradient other than zero, bool `[N]`."""
    live = [tf.reduce_any(z != 0, axis=range(1, z.shape.rank)) for z in tf.nest.flatten(g)]
    return live[0] if len(live) == 1 else tf.reduce_any(tf.stack(live), axis=0)


def _without_others(live, update, states):
    """Return update and states with zeros for the samples without upstream gradient."""
    batches = (states, update.drives, update.drive_inputs[:1])
    # `select` passes over the whole batch, so it runs only where some sample is masked.
    states, drives, inputs = tf.cond(
        tf.reduce_all(live),
        lambda: tf.nest.map_structure(tf.identity, batches),
        lambda: tf.nest.map_structure(lambda z: select(live, z, tf.zeros_like(z)), batches),
    )
    return update._replace(drives=drives, drive_inputs=(*inputs, *update.drive_inputs[1:])), states
