"""What a loop returns: the state, and per sample how many updates it took and why it stopped."""

import enum
from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import comparable_threshold, samples_finite


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

    @classmethod
    def adaptive(cls, state: tf.Tensor, depth, norm, threshold) -> "Unrolled":
        """Return the end of an unroll of adaptive depth.

        Args:
            state: The last state, `[N, ...]`.
            depth: int32 `[N]`.
            norm: The 2-norm of each sample's last update, `[N]`.
            threshold: The stopping threshold, a scalar tensor.
        """
        settled = norm < comparable_threshold(threshold, norm.dtype)
        status = tf.where(settled, int(Status.CONVERGED), int(Status.MAX_UNROLL))
        finite = samples_finite(state) & tf.math.is_finite(norm)
        return cls(state, depth, tf.where(finite, status, int(Status.NOT_FINITE)))

    @classmethod
    def fixed(cls, state: tf.Tensor, depth) -> "Unrolled":
        """Return the end of an unroll of a fixed depth, an int or an int32 scalar."""
        finite = samples_finite(state)
        status = tf.where(finite, int(Status.MAX_UNROLL), int(Status.NOT_FINITE))
        return cls(state, tf.fill(tf.shape(finite), depth), status)
