"""The standardisation of images before they are passed to a model."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Preprocessing(NamedTuple):
    """A callable that standardises raw images, `(image - mean) / std`.

    Attributes:
        mean: The mean of the raw values, one number for each channel.
        std: The standard deviation of the raw values, one number for each channel.

    Raises:
        ValueError: The images of a call have another number of channels than `mean`.

    Example:
        >>> preprocess = ki.Preprocessing(mean=(127.5,), std=(51.0,))
        >>> preprocess(np.full((1, 1, 1, 1), 255)).ravel().tolist()
        [2.5]

    See also:
        `load_pretrained`, whose models have one; `datasets.load`, which standardises the same way.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: np.ndarray | tf.Tensor) -> np.ndarray | tf.Tensor:
        """Return standardised images, float32.

        Args:
            images: Raw values, `[..., channels]`. The result is a tensor for a tensor, symbolic for
                a symbolic tensor of a functional model, else a NumPy array.

        Raises:
            ValueError: The images have another number of channels.
        """
        symbolic = isinstance(images, keras.KerasTensor)
        given = symbolic or tf.is_tensor(images)
        shape = tf.TensorShape(images.shape if given else np.shape(images))
        if not shape.with_rank_at_least(1)[-1:].is_compatible_with([len(self.mean)]):
            raise ValueError(
                f"`images` must have {len(self.mean)} channels, on the last axis. "
                f"Received: images of shape {shape}"
            )
        if symbolic:
            pairs = list(zip(self.mean, self.std, strict=True))
            rescaling = keras.layers.Rescaling(
                [1 / std for _, std in pairs], [-mean / std for mean, std in pairs]
            )
            return rescaling(images)
        if tf.is_tensor(images):
            images = tf.cast(images, tf.float32)
        else:
            images = np.asarray(images, np.float32)
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.mean, self.std))
        return (images - mean) / std
