"""Augmentations of training images, each a pure function of images and random numbers.

An augmentation draws no random numbers. Its argument holds a row of uniform numbers for each image,
which the pipeline computes from (seed, epoch, image number). So the result for an image does not
depend on the rest of its batch, and a resumed run gets the same images as an uninterrupted one.

The largest shift is an eighth of the side: 4 of 32 pixels, 3 of 28, 1 of 8. Colour images are
mirrored. Grey images are not: they show digits, and a mirrored digit is not a digit.

`alternating` is for short trainings: an image that is mirrored in one epoch is not mirrored in the
next, so that each pair of epochs shows both. Its shifts are half as large, and the border is
reflected. Reference: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_iterconv._support.checks import unknown_name
from keras_iterconv._support.extras import require_addons

AUGMENTATIONS = ("none", "standard", "alternating", "addons")

# Number of uniform numbers an image, the largest that an augmentation uses.
DRAWS = 6
MAX_ROTATION = 15.0  # Degrees.

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def get_augmentation(name: str) -> Augmentation:
    """Return an augmentation by its name.

    - `none`: unchanged images.
    - `standard`: pad by an eighth of the side, crop at random, mirror colour images at random.
    - `alternating`: pad by a sixteenth of the side with the image's reflection, crop at random,
      mirror a colour image in every other epoch, half of them in the first.
    - `addons`: shift by whole pixels up to an eighth of the side, mirror colour images at random,
      rotate by whole degrees up to 15, and blank a square of a quarter of the side, all by
      TensorFlow Addons.

    Args:
        name: One of `AUGMENTATIONS`.

    Returns:
        A function of `(images, draws)`. `images` are float32 [B, H, W, C], with 0 the value of
        padding; `draws` are float32 [B, `DRAWS`], uniform on [0, 1), a row an image. It returns
        float32 [B, H, W, C].

    Raises:
        ValueError: The name is unknown.
        MissingExtraError: The name is `addons`, and TensorFlow Addons is not installed.

    Example:
        >>> shift = ki.datasets.get_augmentation("standard")
        >>> images = tf.random.stateless_normal([2, 32, 32, 3], seed=[0, 0])
        >>> draws = tf.random.stateless_uniform([2, ki.datasets.augmentation.DRAWS], seed=[0, 1])
        >>> shift(images, draws).shape
        TensorShape([2, 32, 32, 3])

    See also:
        `datasets.training_batches`, which takes it by its name.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(unknown_name("augment", name, AUGMENTATIONS))
    if name == "addons":
        return _addons(require_addons())
    return {"none": _none, "standard": _standard, "alternating": _alternating}[name]


def alternate(draws: tf.Tensor, first: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Return `draws` with numbers for the mirroring that change sides with each epoch.

    Args:
        draws: Float32 [N, `DRAWS`], uniform on [0, 1).
        first: The numbers for the mirroring in epoch 0, float32 [N], uniform on [0, 1).
        epoch: The epoch, an integer.

    Returns:
        Float32 [N, `DRAWS`].
    """
    other = tf.where(first < 0.5, first + 0.5, first - 0.5)
    chosen = tf.where(epoch % 2 == 0, first, other)
    return tf.concat([draws[:, :2], chosen[:, tf.newaxis], draws[:, 3:]], axis=1)


def _none(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    return images


def _standard(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    return _shift_and_mirror(images, draws, 8, "CONSTANT")


def _alternating(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    return _shift_and_mirror(images, draws, 16, "REFLECT")


def _shift_and_mirror(images: tf.Tensor, draws: tf.Tensor, part: int, border: str) -> tf.Tensor:
    """Shift images by up to a `part`-th of the side, and mirror those whose draw is below 1/2."""
    _, height, width, channels = images.shape
    down, right = height // part, width // part
    padded = tf.pad(images, [[0, 0], [down, down], [right, right], [0, 0]], border)
    rows = _whole(draws[:, 0], 2 * down + 1)[:, tf.newaxis] + tf.range(height)
    columns = _whole(draws[:, 1], 2 * right + 1)[:, tf.newaxis] + _columns(draws, width, channels)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def _addons(tfa: Any) -> Augmentation:
    def augment(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = images.shape
        down, right = height // 8, width // 8
        shifts = tf.stack(
            [_whole(draws[:, 0], 2 * right + 1) - right, _whole(draws[:, 1], 2 * down + 1) - down],
            axis=1,
        )
        images = tfa.image.translate(images, tf.cast(shifts, tf.float32), fill_mode="constant")
        columns = _columns(draws, width, channels)
        images = tf.gather(images, columns, axis=2, batch_dims=1)
        # tfa.image.rotate in two steps: the last bit of a sine can depend on the position of its
        # argument in the batch. In one table of whole degrees positions are fixed.
        degrees = tf.range(-MAX_ROTATION, MAX_ROTATION + 1.0)
        table = tfa.image.angles_to_projective_transforms(
            degrees * (math.pi / 180.0), float(height), float(width)
        )
        rotations = tf.gather(table, _whole(draws[:, 3], len(degrees)))
        images = tfa.image.transform(images, rotations, "bilinear", fill_mode="constant")
        # Not tfa.image.random_cutout: it draws random numbers from a state that a resumed run does
        # not restore.
        centres = tf.stack([_whole(draws[:, 4], height), _whole(draws[:, 5], width)], axis=1)
        return tfa.image.cutout(images, mask_size=(2 * down, 2 * right), offset=centres)

    return augment


def _columns(draws: tf.Tensor, width: int, channels: int) -> tf.Tensor:
    """Return column indices, int32 [B, W], reversed for a random half of colour images."""
    forwards = tf.broadcast_to(tf.range(width), [tf.shape(draws)[0], width])
    if channels == 1:
        return forwards
    return tf.where(draws[:, 2, tf.newaxis] < 0.5, width - 1 - forwards, forwards)


def _whole(draws: tf.Tensor, count: int) -> tf.Tensor:
    """Return integers from 0 to count - 1, from uniform numbers on [0, 1)."""
    return tf.cast(tf.floor(draws * count), tf.int32)
