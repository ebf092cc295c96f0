"""Batch normalisation with TensorFlow's fused operation where there is one."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_channels_last
from keras_iterconv._support.replicas import on_several_replicas, stack_over_replicas
from keras_iterconv._support.unfused import unfused

_FIXED = {"axis": -1, "center": True, "scale": True, "renorm": False}


@keras.saving.register_keras_serializable("keras_iterconv")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that trains on images with one fused operation.

    Keras computes mean, variance and scaling in separate operations. Each of them reads all
    activations again, and TensorFlow sums their three gradients in an order that depends on the
    timing of threads.

    An empty batch, which a replica of a strategy may get, leaves the moving statistics unchanged;
    in Keras it makes them NaN. Each step averages the moving statistics over the replicas; in
    Keras they diverge, and a saved model holds those of the first replica.

    With `synchronized=True` the replicas normalise by the statistics of all their samples
    together, as one device would. The variance is computed from the deviations of each replica; in
    Keras it is the difference of two means, which loses digits where the mean is large. On one
    device the layer is the same with and without it.

    Args:
        **kwargs: As for `keras.layers.BatchNormalization`, except that `axis` must be -1, `center`
            and `scale` must be True, and `renorm` must be False.

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
            # Synchronized statistics are equal on all replicas.
            aggregation = "none" if self.synchronized else "mean"
        return super().add_weight(*args, trainable=trainable, aggregation=aggregation, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        training = bool(training and self.trainable)
        if not training or inputs.shape.rank == 2:
            return unfused(super().call(inputs, training=training))
        inputs = tf.cast(inputs, self.compute_dtype)
        statistics = self.moving_mean, self.moving_variance
        y, *values = normalize_batch(
            inputs, self.gamma, self.beta, statistics, self.epsilon, self.synchronized
        )
        for moving, value in zip(statistics, values, strict=True):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return y

    def _moments(self, inputs, mask):
        # Keras calls this method for the batch's statistics.
        moving = self.moving_mean, self.moving_variance
        if self.synchronized:
            return batch_moments(inputs, moving, synchronized=True)
        return or_moving(super()._moments(inputs, mask), moving, inputs)


def normalize_batch(
    x: tf.Tensor,
    gamma: tf.Tensor | keras.Variable,
    beta: tf.Tensor | keras.Variable,
    moving: Sequence[tf.Tensor | keras.Variable],
    epsilon: float,
    synchronized: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise images by the statistics of their batch.

    Args:
        x: `[N, height, width, channels]`.
        gamma: The scale, `[channels]`, float32 or, for a float64 x, float64.
        beta: The shift, of gamma's shape and dtype.
        moving: The moving mean and variance, which replace the statistics of an empty batch, of
            gamma's shape and dtype.
        epsilon: The number that is added to the variance.
        synchronized: Whether the batch is that of all replicas together.

    Returns:
        `(y, mean, variance)`: y of x's shape and dtype; the batch's mean and biased variance,
        `[channels]` each, without a gradient.
    """
    gamma, beta = tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
    synchronized = synchronized and on_several_replicas()
    # The fused operation does not support float64, and takes no statistics from elsewhere.
    if synchronized or x.dtype == tf.float64:
        wide = tf.cast(x, gamma.dtype)
        mean, variance = batch_moments(wide, moving, synchronized)
        y = tf.nn.batch_normalization(wide, mean, variance, beta, gamma, epsilon)
        return tf.cast(y, x.dtype), tf.stop_gradient(mean), tf.stop_gradient(variance)
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=epsilon, is_training=True
    )
    # The operation normalises by the biased variance, but returns the unbiased one.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), variance.dtype)
    mean, variance = or_moving((mean, variance * (count - 1) / count), moving, x)
    return unfused(y), tf.stop_gradient(mean), tf.stop_gradient(variance)


def batch_moments(
    x: tf.Tensor, moving: Sequence[tf.Tensor | keras.Variable], synchronized: bool = False
) -> list[tf.Tensor]:
    """Return the mean and the biased variance of a batch's channels, `[channels]` each.

    Args:
        x: `[N, ..., channels]`, float32 or float64.
        moving: The moving mean and variance, which replace the statistics of an empty batch.
        synchronized: Whether the batch is that of all replicas together; gradients then flow to
            the samples of all.
    """
    if not (synchronized and on_several_replicas()):
        return or_moving(tf.nn.moments(x, list(range(x.shape.rank - 1))), moving, x)
    axes = list(range(x.shape.rank - 1))
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), x.dtype)
    mean = tf.math.divide_no_nan(tf.reduce_sum(x, axes), count)
    deviations = tf.reduce_sum(tf.math.squared_difference(x, mean), axes)
    rows = stack_over_replicas(tf.concat([count[tf.newaxis], mean, deviations], axis=0))
    counts, means, deviations = tf.split(rows, [1, x.shape[-1], x.shape[-1]], axis=1)
    total = tf.reduce_sum(counts)
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, 0), total)
    between = counts * tf.math.squared_difference(means, mean)
    variance = tf.math.divide_no_nan(tf.reduce_sum(deviations + between, 0), total)
    return _where(total > 0, (mean, variance), moving)


def or_moving(
    statistics: Sequence[tf.Tensor], moving: Sequence[tf.Tensor | keras.Variable], x: tf.Tensor
) -> list[tf.Tensor]:
    """Return a batch's statistics, or the moving statistics where the batch is empty."""
    return _where(tf.shape(x)[0] > 0, statistics, moving)


def _where(
    condition: tf.Tensor, left: Sequence[tf.Tensor], right: Sequence[tf.Tensor | keras.Variable]
) -> list[tf.Tensor]:
    return [tf.where(condition, *pair) for pair in zip(left, right, strict=True)]
