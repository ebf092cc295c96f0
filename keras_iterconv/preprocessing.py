"""How images are standardised before a model sees them."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Preprocessing(NamedTuple):
    """Standardises images, `(image - mean) / std`; call it on raw images.

    Attributes:
        mean: The mean of raw values, a number a channel.
        std: Their standard deviation, a number a channel.

    Example:
        >>> data = data.map(lambda images, labels: (model.preprocessing(images), labels))
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: np.ndarray | tf.Tensor) -> np.ndarray | tf.Tensor:
        """Return standardised images, float32.

        Args:
            images: `[..., C]`, raw values; a tensor gives a tensor, all else an array.

        Raises:
            ValueError: The images have another number of channels.
        """
        shape = images.shape if tf.is_tensor(images) else tf.TensorShape(np.shape(images))
        if not shape.with_rank_at_least(1)[-1:].is_compatible_with([len(self.mean)]):
            raise ValueError(
                f"`images` must have {len(self.mean)} channels, on the last axis. "
                f"Received: images of shape {shape}"
            )
        if tf.is_tensor(images):
            images = tf.cast(images, tf.float32)
        else:
            images = np.asarray(images, np.float32)
        return (images - np.float32(self.mean)) / np.float32(self.std)
