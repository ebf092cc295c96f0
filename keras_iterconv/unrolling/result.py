"""What a loop returns: the state, and per sample how many updates it took and why it stopped."""

import enum
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Status(enum.IntEnum):
    """Why a sample's unroll ended."""

    CONVERGED = 0
    """The 2-norm of its last update fell below the threshold."""
    MAX_UNROLL = 1
    """It made `max_unroll` updates; always so for a fixed depth."""
    NOT_FINITE = 2
    """Its state holds a NaN or an infinity, or its update is too large to have a norm."""


class Unrolled(NamedTuple):
    """The end of an unroll of N samples.

    Attributes:
        state: The last state, `[N, ...]`.
        depth: The number of updates made, int32 `[N]`. The update that fell below the threshold
            is made and counted.
        status: A `Status`, int32 `[N]`.
    """

    state: tf.Tensor
    depth: tf.Tensor
    status: tf.Tensor


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


def each_sample(state: tf.Tensor, depth, norm, threshold) -> Unrolled:
    """Return the end of an unroll of adaptive depth.

    Args:
        state: The last state, `[N, ...]`.
        depth: int32 `[N]`.
        norm: The 2-norm of each sample's last update, `[N]`.
        threshold: The norm below which it has settled, a scalar tensor.
    """
    settled = norm < comparable_threshold(threshold, norm.dtype)
    status = tf.where(settled, int(Status.CONVERGED), int(Status.MAX_UNROLL))
    finite = samples_finite(state) & tf.math.is_finite(norm)
    return Unrolled(state, depth, tf.where(finite, status, int(Status.NOT_FINITE)))


def every_sample(state: tf.Tensor, depth) -> Unrolled:
    """Return the end of an unroll of a fixed depth, an int or an int32 scalar."""
    finite = samples_finite(state)
    status = tf.where(finite, int(Status.MAX_UNROLL), int(Status.NOT_FINITE))
    return Unrolled(state, tf.fill(tf.shape(finite), depth), status)
