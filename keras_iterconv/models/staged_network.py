"""The convolutional skeleton that all nets for images share."""

from collections.abc import Callable, Sequence

import keras

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers.normalization import BatchNormalization
from keras_iterconv.layers.residual_function import BATCH_NORM_MOMENTUM
from keras_iterconv.trainer import IterativeModel


def staged_network(
    input_shape: Sequence[int],
    num_classes: int,
    add_stage: Callable,
    *,
    filters: Sequence[int],
    name: str,
    head_activation: str | None = None,
) -> IterativeModel:
    """Build stages of blocks on images, each stage of half the resolution of the one before.

    A transition (a 3x3 convolution, of stride 2 but for the first, and batch normalisation) opens
    each stage; batch normalisation, global average pooling and one dense layer close the net.
    NAIS-Net normalises where the dimensions change, and normalising before the head is our choice;
    a pre-activation ResNet has that normalisation, and a ReLU behind it.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: The number of logits.
        add_stage: A function `(state, filters, name) -> state` that appends the blocks of one
            stage.
        filters: The channels of each stage.
        name: The model's name.
        head_activation: What follows the head's normalisation, None for nothing.

    Returns:
        An `IterativeModel` from images, float `[N, height, width, channels]`, to logits, float32
        `[N, num_classes]`.

    Reference:
        Ciccone et al. 2018, section 5.2; Lippl et al. 2024, "Iterative convergence indices".
    """
    check_channels_last()
    if not isinstance(filters, Sequence) or len(filters) == 0:
        raise ValueError(
            "`filters` must list the channels of each stage, at least one. "
            f"Received: filters={filters!r}"
        )
    for count in filters:
        check_positive_int("filters", count)
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
        state = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"transition{stage}_norm")(
            state
        )
        state = add_stage(state, channels, f"stage{stage}")
    state = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="head_norm")(state)
    if head_activation is not None:
        state = keras.layers.Activation(head_activation, name="head_activation")(state)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(state)
    return IterativeModel(inputs, classifier(features, num_classes), name=name)


def classifier(features, num_classes: int):
    """Append the dense layer of logits, in float32 whatever the policy."""
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")(features)
