"""NAIS-Net: the convolutional chain of 54 blocks, and the single block for MNIST."""

from collections.abc import Sequence

import keras

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers import NAISConv2D, NAISDense
from keras_iterconv.models.staged_network import classifier, staged_network
from keras_iterconv.trainer import IterativeModel


def nais_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int] = (16, 32, 64),
    blocks: int = 18,
    name: str = "nais_net",
    **block_options,
) -> IterativeModel:
    """Build a NAIS-Net for images: stages of `NAISConv2D` blocks.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: The number of logits.
        filters: The channels of each stage.
        blocks: The number of blocks of each stage.
        name: The model's name.
        **block_options: Arguments of `NAISConv2D`, the same for all blocks: `max_unroll`,
            `threshold`, `step_size`, `activation` and so on.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Ciccone et al. 2018, section 5.2.
    """
    check_positive_int("blocks", blocks)

    def add_stage(state, channels, name):
        for number in range(1, blocks + 1):
            state = NAISConv2D(channels, name=f"{name}_block{number}", **block_options)(state)
        return state

    return staged_network(input_shape, num_classes, add_stage, filters=filters, name=name)


def nais_dense_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    units: int = 128,
    embedding: bool = False,
    name: str = "nais_dense_net",
    **block_options,
) -> IterativeModel:
    """Build a NAIS-Net of one fully connected block on the flattened picture.

    Args:
        input_shape: The picture's shape, `(height, width, channels)`.
        num_classes: The number of logits.
        units: The size of the state.
        embedding: Whether a dense layer maps the picture to the block's input first. With an
            autonomous block that starts at its input this is NAIS-Net's RESNET-SH-STABLE.
        name: The model's name.
        **block_options: Arguments of `NAISDense`: `max_unroll`, `threshold`, `step_size`,
            `activation` and so on.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Ciccone et al. 2018, section 5.1.
    """
    check_channels_last()
    inputs = keras.Input(tuple(input_shape), name="image")
    u = keras.layers.Flatten(name="flatten")(inputs)
    if embedding:
        u = keras.layers.Dense(units, name="embedding")(u)
    state = NAISDense(units, name="block", **block_options)(u)
    return IterativeModel(inputs, classifier(state, num_classes), name=name)
