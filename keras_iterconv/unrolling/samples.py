"""Helpers that treat each sample of a batch by itself."""

import numpy as np
import tensorflow as tf


def per_sample(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshape `[N]` values so that they broadcast over the samples of `like`, `[N, ...]`."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def sample_norms(update: tf.Tensor) -> tf.Tensor:
    """2-norm of each sample's whole update `[N, ...]`, as `[N]`, in float32 or better."""
    if update.dtype.size < 4:
        update = tf.cast(update, tf.float32)
    # Not `tf.math.reduce_euclidean_norm`, an operator that neither ONNX nor LiteRT has. By itself
    # it takes two thirds of the time, but a loop of convolutions is no faster with it.
    return tf.sqrt(tf.reduce_sum(tf.square(update), axis=range(1, update.shape.rank)))


def samples_finite(state: tf.Tensor) -> tf.Tensor:
    """Whether every number of each sample of `[N, ...]` is finite, as bool `[N]`."""
    return tf.reduce_all(tf.math.is_finite(state), axis=range(1, state.shape.rank))


def comparable_threshold(threshold, dtype: tf.DType) -> tf.Tensor:
    """Return a threshold that norms of a dtype can be compared with.

    An infinite one becomes the largest number, which a finite norm can be below. A positive one
    becomes at least the smallest normal number: TensorFlow takes smaller ones for zero, and a norm
    of zero must be below every positive threshold. Zero remains zero: no norm is below it.

    Args:
        threshold: A scalar, any float dtype.
        dtype: That of the norms, float32 or float64.
    """
    threshold = threshold if tf.is_tensor(threshold) else tf.constant(threshold, tf.float64)
    # By its bits, since a comparison takes small numbers for zero too.
    bits = tf.bitcast(threshold, {2: tf.int16, 4: tf.int32, 8: tf.int64}[threshold.dtype.size])
    smallest = tf.where(bits > 0, np.finfo(dtype.as_numpy_dtype).tiny, 0)
    threshold = tf.minimum(tf.cast(threshold, tf.float64), dtype.max)
    return tf.maximum(tf.cast(threshold, dtype), tf.cast(smallest, dtype))


def select(condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return the samples of x where the condition, bool `[N]`, holds, and those of y elsewhere."""
    # Not a product with zeros and ones: a NaN would pass. The older `where` picks whole samples,
    # in a quarter of the time of the other's broadcast.
    return tf.compat.v1.where(condition, x, y)


def put(batch: tf.Tensor, rows: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Return the batch with some samples, `rows`, replaced."""
    return tf.tensor_scatter_nd_update(batch, rows[:, tf.newaxis], part)


def any_size(variable):
    """Return the shape invariant of a loop variable whose first axis changes."""
    if isinstance(variable, tf.TensorArray):
        return tf.TensorShape(None)
    shape = variable.shape
    return shape if shape.rank == 0 else tf.TensorShape([None, *shape[1:]])
