"""NAIS-Net: the convolutional chain of 54 blocks, and the single block for MNIST."""

from collections.abc import Sequence
from typing import Any

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
    synchronized: bool = False,
    name: str = "nais_net",
    **block_options: Any,
) -> IterativeModel:
    """Return a convolutional NAIS-Net: stages of `NAISConv2D` blocks.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        filters: Number of channels of each stage.
        blocks: Number of blocks of each stage.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            images together.
        name: Name of the model.
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

    return staged_network(
        input_shape,
        num_classes,
        add_stage,
        filters=filters,
        name=name,
        synchronized=synchronized,
    )


def nais_dense_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    units: int = 128,
    embedding: bool = False,
    name: str = "nais_dense_net",
    **block_options: Any,
) -> IterativeModel:
    """Return a NAIS-Net of one fully connected block on the flattened image.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        units: Size of the state.
        embedding: Whether a dense layer maps the image to the block's input. With an autonomous
            block whose initial state is its input, this is RESNET-SH-STABLE of NAIS-Net.
        name: Name of the model.
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
