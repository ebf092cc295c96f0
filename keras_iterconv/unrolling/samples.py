"""Operations on each sample of a batch separately."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_iterconv._support.empty_batches import branches_allowed

# A tensor `[N, ...]`, or a structure of them as `tf.nest` defines it.
State = Any


def per_sample(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Return `[N]` values in a shape that broadcasts over the samples of `like`, `[N, ...]`."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def norm_dtype(state: State) -> tf.DType:
    """Return the dtype of norms of a state: float64 where a tensor of it is, else float32."""
    wide = any(z.dtype == tf.float64 for z in tf.nest.flatten(state))
    return tf.float64 if wide else tf.float32


def sample_norms(change: State) -> tf.Tensor:
    """Return the 2-norm of each sample's change over the whole structure, `[N]`.

    Args:
        change: A tensor `[N, ...]` or a structure of them.

    Returns:
        The norms in float64 where a tensor of the structure is, else in float32.
    """
    dtype = norm_dtype(change)
    # Neither ONNX nor LiteRT has the operator of `tf.math.reduce_euclidean_norm`. Alone it takes
    # two thirds of the time, but a loop of convolutions is no faster with it.
    squares = [
        tf.reduce_sum(tf.square(tf.cast(z, dtype)), axis=range(1, z.shape.rank))
        for z in tf.nest.flatten(change)
    ]
    return tf.sqrt(squares[0] if len(squares) == 1 else tf.add_n(squares))


def samples_finite(state: State) -> tf.Tensor:
    """Return which samples of a tensor or structure hold finite numbers only, bool `[N]`."""
    finite = [
        tf.reduce_all(tf.math.is_finite(z), axis=range(1, z.shape.rank))
        for z in tf.nest.flatten(state)
    ]
    return finite[0] if len(finite) == 1 else tf.reduce_all(tf.stack(finite), axis=0)


def batch_size(state: State) -> tf.Tensor:
    """Return N of a tensor `[N, ...]` or a structure of them, an int32 scalar."""
    return tf.shape(tf.nest.flatten(state)[0])[0]


def updates_of(state: State, max_unroll: int | tf.Tensor) -> int | tf.Tensor:
    """Return a number of updates, or 0 for an empty batch, whose convolutions may fail."""
    if tf.nest.flatten(state)[0].shape[0] or not branches_allowed():
        return max_unroll
    return tf.where(batch_size(state) > 0, max_unroll, 0)


def gather_samples(structure: State, sample_indices: tf.Tensor) -> State:
    """Return the samples at `sample_indices`, `[n]`, of each tensor of a structure."""
    return tf.nest.map_structure(lambda z: tf.gather(z, sample_indices), structure)


def comparable_threshold(threshold: Any, dtype: tf.DType) -> tf.Tensor:
    """Return the stopping threshold as a scalar that can be compared with norms of a dtype.

    An infinite threshold becomes the dtype's largest number. A positive threshold becomes at
    least the smallest normal number: TensorFlow flushes smaller numbers to zero, and a norm of
    zero must be below every positive threshold. Zero remains zero: no norm is below it.

    Args:
        threshold: A scalar of any float dtype.
        dtype: The dtype of the norms, float32 or float64.
    """
    threshold = threshold if tf.is_tensor(threshold) else tf.constant(threshold, tf.float64)
    # The sign is read from the bits: a comparison also flushes small numbers to zero.
    bits = tf.bitcast(threshold, {2: tf.int16, 4: tf.int32, 8: tf.int64}[threshold.dtype.size])
    smallest = tf.where(bits > 0, np.finfo(dtype.as_numpy_dtype).tiny, 0)
    # LiteRT cannot compare numbers of float64, so only a threshold that is one is compared as one.
    wide = tf.float64 if threshold.dtype == tf.float64 else dtype
    threshold = tf.minimum(tf.cast(threshold, wide), dtype.max)
    return tf.maximum(tf.cast(threshold, dtype), tf.cast(smallest, dtype))


def select(condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return the samples of x where the condition, bool `[N]`, holds, and those of y elsewhere."""
    # A product with a mask of zeros and ones would keep NaNs. The `where` of TensorFlow 1 selects
    # whole samples, in a quarter of the time that the broadcast of `tf.where` takes.
    return tf.compat.v1.where(condition, x, y)


def put(batch: State, sample_indices: tf.Tensor, samples: State) -> State:
    """Return a batch with the n samples at `sample_indices`, `[n]`, replaced.

    Args:
        batch: A tensor `[N, ...]` or a structure of them.
        sample_indices: int `[n]`.
        samples: A structure like `batch`, `[n, ...]`.
    """
    return tf.nest.map_structure(
        lambda whole, part: tf.tensor_scatter_nd_update(whole, sample_indices[:, tf.newaxis], part),
        batch,
        samples,
    )


def with_shapes_of(state: State, like: State) -> State:
    """Return a structure with the static shapes of another of the same structure."""
    return tf.nest.map_structure(lambda z, other: tf.ensure_shape(z, other.shape), state, like)


def any_size(variable: tf.Tensor | tf.TensorArray) -> tf.TensorShape:
    """Return the shape invariant of a loop variable whose first axis changes its size."""
    if isinstance(variable, tf.TensorArray):
        return tf.TensorShape(None)
    shape = variable.shape
    return shape if shape.rank == 0 else tf.TensorShape([None, *shape[1:]])
