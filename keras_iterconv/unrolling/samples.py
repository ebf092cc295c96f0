"""Operations on each sample of a batch separately."""

import numpy as np
import tensorflow as tf


def per_sample(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Return `[N]` values in a shape that broadcasts over the samples of `like`, `[N, ...]`."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def sample_norms(update: tf.Tensor) -> tf.Tensor:
    """Return the 2-norm of each sample's whole update `[N, ...]`, `[N]`, in float32 or float64."""
    if update.dtype.size < 4:
        update = tf.cast(update, tf.float32)
    # Neither ONNX nor LiteRT has the operator of `tf.math.reduce_euclidean_norm`. Alone it takes
    # two thirds of the time, but a loop of convolutions is no faster with it.
    return tf.sqrt(tf.reduce_sum(tf.square(update), axis=range(1, update.shape.rank)))


def samples_finite(state: tf.Tensor) -> tf.Tensor:
    """Return which samples of `[N, ...]` hold finite numbers only, bool `[N]`."""
    return tf.reduce_all(tf.math.is_finite(state), axis=range(1, state.shape.rank))


def comparable_threshold(threshold, dtype: tf.DType) -> tf.Tensor:
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
    threshold = tf.minimum(tf.cast(threshold, tf.float64), dtype.max)
    return tf.maximum(tf.cast(threshold, dtype), tf.cast(smallest, dtype))


def select(condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return the samples of x where the condition, bool `[N]`, holds, and those of y elsewhere."""
    # A product with a mask of zeros and ones would keep NaNs. The `where` of TensorFlow 1 selects
    # whole samples, in a quarter of the time that the broadcast of `tf.where` takes.
    return tf.compat.v1.where(condition, x, y)


def put(batch: tf.Tensor, sample_indices: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
    """Return the batch `[N, ...]` with the n samples at `sample_indices`, `[n]`, replaced."""
    return tf.tensor_scatter_nd_update(batch, sample_indices[:, tf.newaxis], samples)


def any_size(variable):
    """Return the shape invariant of a loop variable whose first axis changes its size."""
    if isinstance(variable, tf.TensorArray):
        return tf.TensorShape(None)
    shape = variable.shape
    return shape if shape.rank == 0 else tf.TensorShape([None, *shape[1:]])
