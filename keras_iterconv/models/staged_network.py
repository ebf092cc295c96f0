"""The common structure of the convolutional nets: stages of blocks between a stem and a head."""

import functools
from collections.abc import Callable, Sequence

import keras

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers.block_values import BATCH_NORM_MOMENTUM
from keras_iterconv.layers.normalization import BatchNormalization
from keras_iterconv.trainer import IterativeModel


def staged_network(
    input_shape: Sequence[int],
    num_classes: int,
    add_stage: Callable,
    *,
    filters: Sequence[int],
    name: str,
    head_activation: str | None = None,
    synchronized: bool = False,
) -> IterativeModel:
    """Return a convolutional net of stages of blocks, each stage of half the previous resolution.

    Each stage starts with a transition: a 3x3 convolution, of stride 2 except in the first stage,
    and batch normalisation. The net ends with batch normalisation, global average pooling and a
    dense layer. NAIS-Net has normalisation where the dimensions change; the normalisation before
    the head is a choice made here. A pre-activation ResNet has it too, with a ReLU after it.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        add_stage: Function `(state, filters, name) -> state` that appends the blocks of one
            stage.
        filters: Number of channels of each stage.
        name: Name of the model.
        head_activation: Activation after the normalisation of the head, or None.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            images together.

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
    normalize = functools.partial(
        BatchNormalization, momentum=BATCH_NORM_MOMENTUM, synchronized=synchronized
    )
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
        state = normalize(name=f"transition{stage}_norm")(state)
        state = add_stage(state, channels, f"stage{stage}")
    state = normalize(name="head_norm")(state)
    if head_activation is not None:
        state = keras.layers.Activation(head_activation, name="head_activation")(state)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(state)
    return IterativeModel(inputs, classifier(features, num_classes), name=name)


def classifier(features: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Return the logits of a dense layer on `features`, in float32, of a float64 net in float64."""
    wide = keras.config.dtype_policy().compute_dtype == "float64"
    dtype = "float64" if wide else "float32"
    return keras.layers.Dense(num_classes, dtype=dtype, name="logits")(features)
