"""The end of a loop, and what its backward pass needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import put
from keras_iterconv.unrolling.update import BoundUpdate, State


class Ends(NamedTuple):
    """The results of the samples of the whole batch; not yet valid for active samples.

    Attributes:
        x: The last states, a structure of tensors `[N, ...]`.
        depth: The numbers of updates, int32 `[N]`.
        values: What the stopping rule measured at the last updates, `[N]`.
    """

    x: State
    depth: tf.Tensor
    values: tf.Tensor

    def with_stopped(
        self, sample_indices: tf.Tensor, x: State, k: int | tf.Tensor, values: tf.Tensor
    ) -> "Ends":
        """Return the ends with those of n more samples.

        Args:
            sample_indices: The samples' indices in the whole batch, `[n]`.
            x: Their last states, a structure like `x`, `[n, ...]`.
            k: The number of updates that they have made, an int32 scalar.
            values: What the stopping rule measured at their last updates, `[n]`.
        """
        return Ends(
            put(self.x, sample_indices, x),
            put(self.depth, sample_indices, tf.fill(tf.shape(sample_indices), k)),
            put(self.values, sample_indices, values),
        )


class Trajectory(NamedTuple):
    """The end of a loop, and what its backward pass needs.

    Attributes:
        start: The first state, a tensor `[N, ...]` or a structure of them.
        state: The last state.
        depth: The number of updates made, int32 `[N]`.
        updates: The largest of these numbers, an int32 scalar.
        value: What the stopping rule measured at each sample's last update, `[N]`; None for a fixed
            depth.
        kept: What was kept of each update, `Update.begin_step`: a structure of `tf.TensorArray`s
            of tensors `[n, ...]` for the n samples that were in the batch at that update. None
            where nothing was kept.
        starts: The number of the first update of each round, int32 `[rounds]`, the first of them
            0; each later round begins with a compaction. None for a fixed depth.
        carried: As in `BoundUpdate`, after the last update.
    """

    start: State
    state: State
    depth: tf.Tensor
    updates: tf.Tensor
    value: tf.Tensor | None
    kept: Any
    starts: tf.Tensor | None
    carried: tuple = ()


def empty_arrays(update: BoundUpdate, state: State, keep: bool) -> Any:
    """Return empty arrays for what is kept of each update; an empty tuple if nothing is kept."""
    if not keep:
        return ()
    specs = update.update.kept_specs(state)
    return tf.nest.map_structure(lambda spec: tensor_array(spec.dtype, spec.shape), specs)


def write(arrays: Any, k: int | tf.Tensor, tensors: Any) -> Any:
    """Return the arrays with the tensors of update k, two structures."""
    return tf.nest.map_structure(lambda array, z: array.write(k, z), arrays, tensors)


def read(arrays: Any, k: int | tf.Tensor, state: State) -> Any:
    """Return what was kept of update k, with the batch size of a state."""
    samples = tf.nest.flatten(state)[0].shape[0]
    return tf.nest.map_structure(
        lambda array: tf.ensure_shape(array.read(k), [samples, *array.element_shape[1:]]), arrays
    )


def tensor_array(dtype: tf.DType, shape: Sequence[int | None] | tf.TensorShape) -> tf.TensorArray:
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
