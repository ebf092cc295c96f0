"""Max pooling that keeps what is not finite."""

from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_channels_last
from keras_iterconv.unrolling.samples import per_sample, samples_finite


@keras.saving.register_keras_serializable("keras_iterconv")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` whose result is NaN for a sample that is not finite.

    On a CPU the maximum of NaN and a number is the number, so that a net would answer for an image
    with a NaN as for any other.

    Args:
        **kwargs: As for `keras.layers.MaxPooling2D`, channels last.

    Call arguments:
        inputs: `[N, height, width, channels]`.

    Returns:
        `[N, height', width', channels]`, in the layer's compute dtype.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_channels_last()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        largest = super().call(inputs)
        not_finite = tf.constant(float("nan"), largest.dtype)
        return tf.where(per_sample(samples_finite(inputs), largest), largest, not_finite)
