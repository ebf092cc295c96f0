"""Batch normalisation as one operation, where TensorFlow has one."""

import keras
import tensorflow as tf

from keras_iterconv.checks import check_channels_last

_FIXED = {"axis": -1, "center": True, "scale": True, "synchronized": False, "renorm": False}


@keras.saving.register_keras_serializable("keras_iterconv")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, of pictures, as one fused operation in training.

    Keras takes mean, variance and scaling apart: each reads all of the activations again, and
    the order in which TensorFlow sums their three gradients depends on the threads' timing.

    Args:
        **kwargs: As for `keras.layers.BatchNormalization`, but `axis` is the last one, `center`
            and `scale` are on, `synchronized` and `renorm` off.

    Call arguments:
        inputs: `[N, height, width, channels]`.
        training: Whether to normalise by the batch and to move the statistics.

    Returns:
        A tensor of the inputs' shape, in the layer's compute dtype.

    Raises:
        ValueError: An argument asks for what the fused operation cannot do.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        check_channels_last()
        for name, expected in _FIXED.items():
            if getattr(self, name) != expected:
                raise ValueError(
                    f"`{name}` must be {expected}; take `keras.layers.BatchNormalization` for "
                    f"another. Received: {name}={getattr(self, name)!r}"
                )

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})

    def call(self, inputs, training=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        inputs = tf.cast(inputs, self.compute_dtype)
        y, mean, variance = normalize_batch(inputs, self.gamma, self.beta, self.epsilon)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return y


def normalize_batch(x, gamma, beta, epsilon: float):
    """Normalise by the batch.

    Args:
        x: `[N, height, width, channels]`.
        gamma: The scale, `[channels]`, float32 or, for a float64 x, float64.
        beta: The shift, of gamma's shape and dtype.
        epsilon: What is added to the variance.

    Returns:
        `(y, mean, variance)`: y of x's shape and dtype; the batch's mean and biased variance,
        `[channels]` each, without a gradient.
    """
    gamma, beta = tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
    if x.dtype == tf.float64:  # The fused operation knows no float64.
        mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
        y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
        return y, tf.stop_gradient(mean), tf.stop_gradient(variance)
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=epsilon, is_training=True
    )
    # It normalises by the biased variance and returns the unbiased one.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), variance.dtype)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance * (count - 1) / count)
