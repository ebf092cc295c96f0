"""Batch normalisation with TensorFlow's fused operation where there is one."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_channels_last
from keras_iterconv._support.unfused import unfused

_FIXED = {"axis": -1, "center": True, "scale": True, "synchronized": False, "renorm": False}


@keras.saving.register_keras_serializable("keras_iterconv")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that trains on images with one fused operation.

    Keras computes mean, variance and scaling in separate operations. Each of them reads all
    activations again, and TensorFlow sums their three gradients in an order that depends on the
    timing of threads.

    An empty batch, which a replica of a strategy may get, leaves the moving statistics unchanged;
    in Keras it makes them NaN. Each step averages the moving statistics over the replicas; in
    Keras they diverge, and a saved model holds those of the first replica.

    Args:
        **kwargs: As for `keras.layers.BatchNormalization`, except that `axis` must be -1, `center`
            and `scale` must be True, `synchronized` and `renorm` must be False.

    Call arguments:
        inputs: `[N, height, width, channels]` or `[N, channels]`.
        training: Whether to normalise by the batch's statistics and to update the moving ones.

    Returns:
        A tensor of the inputs' shape, in the layer's compute dtype.

    Raises:
        ValueError: The inputs have another rank, or the fused operation does not support the value
            of an argument.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        check_channels_last()
        for name, expected in _FIXED.items():
            if getattr(self, name) != expected:
                raise ValueError(
                    f"`{name}` must be {expected}; use `keras.layers.BatchNormalization` for "
                    f"another value. Received: {name}={getattr(self, name)!r}"
                )

    def build(self, input_shape: Sequence[int | None]) -> None:
        if len(input_shape) not in (2, 4):
            raise ValueError(
                f"The inputs of {self.name!r} must have 2 or 4 axes. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes={-1: input_shape[-1]})

    def add_weight(
        self, *args: Any, trainable: bool = True, aggregation: str = "none", **kwargs: Any
    ) -> keras.Variable:
        if not trainable:
            aggregation = "mean"
        return super().add_weight(*args, trainable=trainable, aggregation=aggregation, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        training = bool(training and self.trainable)
        if not training or inputs.shape.rank == 2:
            return unfused(super().call(inputs, training=training))
        inputs = tf.cast(inputs, self.compute_dtype)
        statistics = self.moving_mean, self.moving_variance
        y, *values = normalize_batch(inputs, self.gamma, self.beta, statistics, self.epsilon)
        for moving, value in zip(statistics, values, strict=True):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return y

    def _moments(self, inputs, mask):
        # Keras calls this method for the batch's statistics.
        moving = self.moving_mean, self.moving_variance
        return or_moving(super()._moments(inputs, mask), moving, inputs)


def normalize_batch(
    x: tf.Tensor,
    gamma: tf.Tensor | keras.Variable,
    beta: tf.Tensor | keras.Variable,
    moving: Sequence[tf.Tensor | keras.Variable],
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise images by the statistics of their batch.

    Args:
        x: `[N, height, width, channels]`.
        gamma: The scale, `[channels]`, float32 or, for a float64 x, float64.
        beta: The shift, of gamma's shape and dtype.
        moving: The moving mean and variance, which replace the statistics of an empty batch, of
            gamma's shape and dtype.
        epsilon: The number that is added to the variance.

    Returns:
        `(y, mean, variance)`: y of x's shape and dtype; the batch's mean and biased variance,
        `[channels]` each, without a gradient.
    """
    gamma, beta = tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
    if x.dtype == tf.float64:  # The fused operation does not support float64.
        mean, variance = or_moving(tf.nn.moments(x, axes=[0, 1, 2]), moving, x)
        y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
        return y, tf.stop_gradient(mean), tf.stop_gradient(variance)
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=epsilon, is_training=True
    )
    # The operation normalises by the biased variance, but returns the unbiased one.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), variance.dtype)
    mean, variance = or_moving((mean, variance * (count - 1) / count), moving, x)
    return unfused(y), tf.stop_gradient(mean), tf.stop_gradient(variance)


def or_moving(
    statistics: Sequence[tf.Tensor], moving: Sequence[tf.Tensor | keras.Variable], x: tf.Tensor
) -> list[tf.Tensor]:
    """Return a batch's statistics, or the moving statistics where the batch is empty."""
    return [tf.where(tf.shape(x)[0] > 0, *pair) for pair in zip(statistics, moving, strict=True)]
