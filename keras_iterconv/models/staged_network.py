"""The convolutional skeleton that NAIS-Net and its ResNet baseline share."""

from collections.abc import Callable, Sequence

import keras

from keras_iterconv.checks import check_positive_int
from keras_iterconv.trainer import IterativeModel

# The moving statistics follow the training's with a time constant of ten steps, so that they are
# right after one epoch of a small data set too.
BATCH_NORM_MOMENTUM = 0.9


def staged_network(
    input_shape: Sequence[int],
    num_classes: int,
    add_block: Callable,
    *,
    filters: Sequence[int],
    blocks: int,
    name: str,
) -> IterativeModel:
    """Build stages of blocks on images, each stage of half the resolution of the one before.

    A transition (a 3x3 convolution, of stride 2 but for the first, and batch normalisation) opens
    each stage; batch normalisation, global average pooling and one dense layer close the net.
    There is no other normalisation: N normalises where the dimensions change, and normalising
    before the head is our choice.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: The number of logits.
        add_block: A function `(state, filters, name) -> state` that appends one block.
        filters: The channels of each stage.
        blocks: The number of blocks of each stage.
        name: The model's name.

    Returns:
        An `IterativeModel` from images, float `[N, height, width, channels]`, to logits, float32
        `[N, num_classes]`.

    Reference:
        Ciccone et al. 2018, section 5.2.
    """
    if not isinstance(filters, Sequence) or len(filters) == 0:
        raise ValueError(
            "`filters` must list the channels of each stage, at least one. "
            f"Received: filters={filters!r}"
        )
    for count in filters:
        check_positive_int("filters", count)
    check_positive_int("blocks", blocks)
    inputs = keras.Input(tuple(input_shape), name="image")
    state = inputs
    for stage, channels in enumerate(filters, start=1):
        state = keras.layers.Conv2D(
            channels,
            3,
            strides=1 if stage == 1 else 2,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"transition{stage}",
        )(state)
        state = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, name=f"transition{stage}_norm"
        )(state)
        for block in range(1, blocks + 1):
            state = add_block(state, channels, f"stage{stage}_block{block}")
    state = keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="head_norm")(state)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(state)
    return IterativeModel(inputs, classifier(features, num_classes), name=name)


def classifier(features, num_classes: int):
    """Append the dense layer of logits, in float32 whatever the policy."""
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")(features)
