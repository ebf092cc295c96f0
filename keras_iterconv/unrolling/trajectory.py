"""The end of a loop, and what its backward pass needs."""

from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import put
from keras_iterconv.unrolling.update import Update


class Ends(NamedTuple):
    """The results of the samples of the whole batch; not yet valid for active samples.

    Attributes:
        x: The last states, `[N, ...]`.
        depth: The numbers of updates, int32 `[N]`.
        norms: The 2-norms of the last updates, `[N]`.
    """

    x: tf.Tensor
    depth: tf.Tensor
    norms: tf.Tensor

    def with_stopped(self, sample_indices, x, k, norms) -> "Ends":
        """Return the ends with those of n more samples.

        Args:
            sample_indices: The samples' indices in the whole batch, `[n]`.
            x: Their last states, `[n, ...]`.
            k: The number of updates that they have made, an int32 scalar.
            norms: The 2-norms of their last updates, `[n]`.
        """
        return Ends(
            put(self.x, sample_indices, x),
            put(self.depth, sample_indices, tf.fill(tf.shape(sample_indices), k)),
            put(self.norms, sample_indices, norms),
        )


class Trajectory(NamedTuple):
    """The end of a loop, and what its backward pass needs.

    Attributes:
        start: The first state, `[N, ...]`.
        state: The last state, `[N, ...]`.
        depth: The number of updates made, int32 `[N]`.
        updates: The largest of these numbers, an int32 scalar.
        norm: The 2-norm of each sample's last update, `[N]`; None for a fixed depth.
        values: A `tf.TensorArray` of the value sigma(...) of each update, `[n, ...]` for the n
            samples that were in the batch at that update; None where the values were not kept.
        starts: The number of the first update of each round, int32 `[rounds]`, the first of them
            0; each later round begins with a compaction. None for a fixed depth.
    """

    start: tf.Tensor
    state: tf.Tensor
    depth: tf.Tensor
    updates: tf.Tensor
    norm: tf.Tensor | None
    values: tf.TensorArray | None
    starts: tf.Tensor | None


def kept_values(update: Update, state, keep: bool):
    """Return an empty array for the values; an empty tuple where they are not kept."""
    return value_array(update.dtype, [None, *state.shape[1:]]) if keep else ()


def value_array(dtype: tf.DType, shape) -> tf.TensorArray:
    """Return an empty `tf.TensorArray` for tensors of a shape, whose sizes may be None."""
    return tf.TensorArray(
        dtype,
        # Dynamic, so that memory grows with the updates made and not with their largest number.
        size=0,
        dynamic_size=True,
        # A persistent tape runs the backward pass more than once, and reads the values each time.
        clear_after_read=False,
        element_shape=shape,
        infer_shape=False,
    )
