"""The ResNets of Lippl et al., and the convolutional and fully connected baselines of NAIS-Net."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers import BatchNormalization, ResidualStage, ResidualUpdate
from keras_iterconv.layers.block_values import BATCH_NORM_MOMENTUM
from keras_iterconv.models.staged_network import classifier, staged_network
from keras_iterconv.trainer import IterativeModel


def residual_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    width: int = 16,
    blocks: int = 16,
    synchronized: bool = False,
    name: str = "residual_net",
    **stage_options: Any,
) -> IterativeModel:
    """Return a pre-activation ResNet of Lippl et al.: three stages of `ResidualStage`.

    The paper does not describe the transitions between stages. Here each is a 3x3 convolution and
    batch normalisation, as in `staged_network`, of stride 2 before the second and third stage.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        width: Number of channels of the first stage; the second stage has twice and the third four
            times as many.
        blocks: Number of blocks of each stage, T in the paper.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            images together.
        name: Name of the model.
        **stage_options: Arguments of `ResidualStage`, the same for all stages: `skip_from`,
            `lipschitz_cap`, `shared_initialization`, `initial_gamma`, `tied`, `threshold`.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Lippl et al. 2024, "Iterative convergence indices" and Eq. 3.
    """
    check_positive_int("width", width)
    check_positive_int("blocks", blocks)

    def add_stage(state, channels, name):
        return ResidualStage(
            channels, blocks, synchronized=synchronized, name=name, **stage_options
        )(state)

    return staged_network(
        input_shape,
        num_classes,
        add_stage,
        filters=(width, 2 * width, 4 * width),
        name=name,
        head_activation="relu",
        synchronized=synchronized,
    )


def resnet54(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int] = (16, 32, 64),
    blocks: int = 18,
    batch_norm: bool = True,
    step_size: float = 1.0,
    activation: str = "relu",
    synchronized: bool = False,
    name: str = "resnet54",
) -> IterativeModel:
    """Return the ResNet baseline of NAIS-Net, with blocks x + h sigma(BN(C * x)).

    The paper replaces the block of He et al. of "two convolutions (plus BatchNorm and ReLU)" by "a
    single convolution". Here the normalisation and the ReLU stay, which is the likelier reading.
    The paper does not give the order within the block. Here it is that of the first half of the
    block of He et al. 2015: convolution, normalisation, ReLU. So the block is Eq. 4 of NAIS-Net
    with D = 0 and h = 1, which the paper calls the original ResNet, with normalisation before
    sigma, as in `resnet_dense`.

    Without `batch_norm` the blocks are x + h sigma(C * x + E), and only the transitions and the
    head have normalisation, as in `nais_net`.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        filters: Number of channels of each stage.
        blocks: Number of blocks of each stage.
        batch_norm: Whether batch normalisation follows the convolution of each block.
        step_size: Step size h, in (0, 1].
        activation: `"relu"` or `"tanh"`.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            images together.
        name: Name of the model.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Ciccone et al. 2018, section 5.2; He et al. 2015, "Deep residual learning for image
        recognition".
    """
    check_positive_int("blocks", blocks)

    def transfer(state, channels, name):
        if batch_norm:
            state = keras.layers.Conv2D(
                channels,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=f"{name}_conv",
            )(state)
            return BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM, synchronized=synchronized, name=f"{name}_norm"
            )(state)
        # Without normalisation, He's variance of 2 / fan-in would double the variance of the state
        # in each block. Divided by the number of blocks, it bounds the growth over the net.
        small = keras.initializers.VarianceScaling(
            2 / (len(filters) * blocks), distribution="untruncated_normal"
        )
        return keras.layers.Conv2D(
            channels, 3, padding="same", kernel_initializer=small, name=f"{name}_conv"
        )(state)

    def add_stage(state, channels, name):
        for number in range(1, blocks + 1):
            block = f"{name}_block{number}"
            update = ResidualUpdate(step_size, activation, name=block)
            state = update([state, transfer(state, channels, block)])
        return state

    return staged_network(
        input_shape,
        num_classes,
        add_stage,
        filters=filters,
        name=name,
        synchronized=synchronized,
    )


def resnet_dense(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    shared: bool = False,
    non_autonomous: bool = False,
    batch_norm: bool = False,
    units: int = 128,
    max_unroll: int = 30,
    step_size: float = 1.0,
    activation: str = "relu",
    synchronized: bool = False,
    name: str = "resnet_dense",
) -> IterativeModel:
    """Return a fully connected ResNet of NAIS-Net: x(k+1) = x(k) + h sigma(norm(A x(k) + b)).

    In a non-autonomous net, B u is added to A x(k) + b before the normalisation. A is not
    constrained, so these nets need not be stable. An autonomous net depends on the image only
    through x(0) = W u + c; a non-autonomous one starts at zero, as the NAIS block does.

    By default h is 1: the paper calls Eq. 3 "with B = 0, and the step h = 1" the original ResNet,
    and gives no other step for its nine ResNets. The paper does not give the initial weights. Here
    they are small enough for `max_unroll` updates at h = 1: A and B have a standard deviation of
    1 / (max_unroll sqrt(fan-in)), and gamma is 1 / max_unroll.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        shared: Whether all updates share A, b and B (SH in the paper). Statistics and scales of the
            normalisation are never shared.
        non_autonomous: Whether the image is an input of each update (NA in the paper).
        batch_norm: Whether batch normalisation precedes each activation (BN in the paper).
        units: Size of the state.
        max_unroll: Number of updates.
        step_size: Step size h, in (0, 1].
        activation: `"relu"` or `"tanh"`.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            images together.
        name: Name of the model.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Ciccone et al. 2018, section 5.1.
    """
    check_channels_last()
    check_positive_int("units", units)
    check_positive_int("max_unroll", max_unroll)
    inputs = keras.Input(tuple(input_shape), name="image")
    flat = keras.layers.Flatten(name="flatten")(inputs)

    # The 2-norm of a square Gaussian matrix is about twice its standard deviation times the square
    # root of its side, here about 2 / max_unroll. So all updates together multiply the norm of the
    # state by about exp(2 h) at most, and the drives of all updates add up to about one embedding.
    def small():
        return keras.initializers.VarianceScaling(1 / max_unroll**2)

    def state_layer(suffix):
        return keras.layers.Dense(units, kernel_initializer=small(), name=f"A{suffix}")

    def drive(suffix):
        return keras.layers.Dense(
            units, use_bias=False, kernel_initializer=small(), name=f"B{suffix}"
        )(flat)

    suffixes: list[str | int] = [""] * max_unroll if shared else [*range(1, max_unroll + 1)]
    state_layers = {suffix: state_layer(suffix) for suffix in suffixes}
    if non_autonomous:
        drives = {suffix: drive(suffix) for suffix in state_layers}
        state = keras.ops.zeros_like(drives[suffixes[0]])
    else:
        state = keras.layers.Dense(units, name="embedding")(flat)
    for k, suffix in enumerate(suffixes, start=1):
        transfer = state_layers[suffix](state)
        if non_autonomous:
            transfer = keras.layers.Add(name=f"drive{k}")([transfer, drives[suffix]])
        if batch_norm:
            # The size of a normalised transfer is of order gamma, whatever A is.
            transfer = BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM,
                synchronized=synchronized,
                gamma_initializer=keras.initializers.Constant(1 / max_unroll),
                name=f"norm{k}",
            )(transfer)
        state = ResidualUpdate(step_size, activation, name=f"update{k}")([state, transfer])
    return IterativeModel(inputs, classifier(state, num_classes), name=name)
