"""A NAIS-Net of few wide blocks, which trains within an hour on two cores."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers import BatchNormalization, MaxPooling2D, NAISConv2D
from keras_iterconv.models.staged_network import classifier
from keras_iterconv.models.whitening import whiten_patches
from keras_iterconv.trainer import IterativeModel

# Short trainings end before the usual momentum of 0.9 follows the weights.
BATCH_NORM_MOMENTUM = 0.8
WHITENING = "whitening"
# Logits of this size at the start, at the learning rate of the other layers.
FEATURE_SCALE = 1 / 9
PATCH = 2


def nais_fast_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int] = (64, 128, 256),
    blocks: int = 1,
    synchronized: bool = False,
    name: str = "nais_fast",
    **block_options: Any,
) -> IterativeModel:
    """Return a NAIS-Net of few wide stages.

    The first layer whitens patches of 2x2 pixels; `whiten` computes its kernel from the images, and
    it is not trained. Each stage is a 3x3 convolution, max pooling by two, batch normalisation,
    a ReLU, and `NAISConv2D` blocks. The net ends with global max pooling and a dense layer.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`, both sides at least 2.
        num_classes: Number of logits.
        filters: Number of channels of each stage.
        blocks: Number of blocks of each stage.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            images together.
        name: Name of the model.
        **block_options: Arguments of `NAISConv2D`, the same for all blocks.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Ciccone et al. 2018 (the blocks); Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single
        GPU" (the layers around them).
    """
    check_channels_last()
    check_positive_int("blocks", blocks)
    inputs = keras.Input(tuple(input_shape), name="image")
    state = keras.layers.Conv2D(
        2 * PATCH * PATCH * input_shape[-1],
        PATCH,
        use_bias=False,
        activation="relu",
        trainable=False,
        name=WHITENING,
    )(inputs)
    for stage, channels in enumerate(filters, start=1):
        state = keras.layers.Conv2D(
            channels,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"transition{stage}",
        )(state)
        state = MaxPooling2D(padding="same", name=f"transition{stage}_pool")(state)
        state = BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM,
            synchronized=synchronized,
            name=f"transition{stage}_norm",
        )(state)
        state = keras.layers.Activation("relu", name=f"transition{stage}_relu")(state)
        for number in range(1, blocks + 1):
            state = NAISConv2D(channels, name=f"stage{stage}_block{number}", **block_options)(state)
    features = keras.layers.GlobalMaxPooling2D(name="pool")(state)
    features = keras.layers.Rescaling(FEATURE_SCALE, name="scale")(features)
    return IterativeModel(inputs, classifier(features, num_classes), name=name)


def has_whitening(model: keras.Model) -> bool:
    """Return whether a net has the first layer whose kernel `whiten` computes."""
    return any(layer.name == WHITENING for layer in model.layers)


def whiten(model: keras.Model, images: np.ndarray) -> None:
    """Compute the first layer of a `nais_fast` net from images, before its training.

    The layer makes the patches of 2x2 pixels uncorrelated and of equal variance. It is not trained.

    Args:
        model: The net.
        images: Images as the net gets them, float `[N, height, width, channels]`; a few thousand.

    Raises:
        ValueError: The net is not of `create_model("nais_fast", ...)`, or the images do not fit.

    Example:
        >>> model = ki.create_model("nais_fast", (8, 8, 3), 10, filters=[4, 4])
        >>> images = np.random.default_rng(0).normal(size=(256, 8, 8, 3)).astype("float32")
        >>> ki.whiten(model, images)
        >>> whitened = keras.Model(model.input, model.get_layer("whitening").output)(images)
        >>> bool(np.ptp(whitened.numpy().std((0, 1, 2))) < 0.1)  # all channels vary alike
        True

    See also:
        `create_model`.
    """
    if not has_whitening(model):
        raise ValueError(
            f"`model` must have a convolution named {WHITENING!r}, as `nais_fast` has. "
            f"Received: the model {model.name!r}"
        )
    whiten_patches(model.get_layer(WHITENING), images)
