"""The end of a loop, and what its backward pass needs."""

from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.update import Update


class Trajectory(NamedTuple):
    """The end of a loop, and what its backward pass needs.

    Attributes:
        start: The first state, `[N, ...]`.
        state: The last state, `[N, ...]`.
        depth: The updates made, int32 `[N]`.
        updates: How many the sample of the most made, an int32 scalar.
        norm: The 2-norm of each sample's last update, `[N]`; None for a fixed depth.
        values: A `tf.TensorArray` of sigma(...) by update, each `[n, ...]` for the n samples that
            the batch held then; None where they were not kept.
        starts: int32 `[rounds]`, the updates at which stopped samples left the batch, from 0; None
            for a fixed depth.
    """

    start: tf.Tensor
    state: tf.Tensor
    depth: tf.Tensor
    updates: tf.Tensor
    norm: tf.Tensor | None
    values: tf.TensorArray | None
    starts: tf.Tensor | None


def kept_values(update: Update, state, keep: bool):
    """Return the array for the values; nothing in its place where they are not kept."""
    return value_array(update.dtype, [None, *state.shape[1:]]) if keep else ()


def value_array(dtype: tf.DType, shape) -> tf.TensorArray:
    """Return an empty array for tensors of one shape, of which some sizes may be unknown."""
    return tf.TensorArray(
        dtype,
        # It grows: a limit that no sample reaches should cost no memory.
        size=0,
        dynamic_size=True,
        # Kept after they were read: a persistent tape walks back more than once.
        clear_after_read=False,
        element_shape=shape,
        infer_shape=False,
    )
