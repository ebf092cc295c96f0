"""The ResNets: those of Lippl et al., and NAIS-Net's baselines for images and for MNIST."""

from collections.abc import Sequence

import keras

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers import BatchNormalization, ResidualStage, ResidualUpdate
from keras_iterconv.layers.residual_function import BATCH_NORM_MOMENTUM
from keras_iterconv.models.staged_network import classifier, staged_network
from keras_iterconv.trainer import IterativeModel


def residual_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    width: int = 16,
    blocks: int = 16,
    name: str = "residual_net",
    **stage_options,
) -> IterativeModel:
    """Build a pre-activation ResNet of Lippl et al.: three stages of `ResidualStage`.

    The paper does not publish the transitions: ours are a 3x3 convolution and batch normalisation,
    as in `staged_network`, of stride 2 before the second and the third stage.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: The number of logits.
        width: The channels of the first stage; the second has twice and the third four times as
            many.
        blocks: T, the number of blocks of each stage.
        name: The model's name.
        **stage_options: Arguments of `ResidualStage`, the same for all stages: `skip_from`,
            `lipschitz_cap`, `shared_initialization`, `initial_gamma`.

    Returns:
        An `IterativeModel` from images to logits.

    Reference:
        Lippl et al. 2024, "Iterative convergence indices" and Eq. 3.
    """
    check_positive_int("width", width)
    check_positive_int("blocks", blocks)

    def add_stage(state, channels, name):
        return ResidualStage(channels, blocks, name=name, **stage_options)(state)

    return staged_network(
        input_shape,
        num_classes,
        add_stage,
        filters=(width, 2 * width, 4 * width),
        name=name,
        head_activation="relu",
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
    name: str = "resnet54",
) -> IterativeModel:
    """Build NAIS-Net's ResNet baseline: blocks x + h sigma(BN(C * x)), one convolution each.

    The paper takes He et al.'s block of "two convolutions (plus BatchNorm and ReLU)" and uses "a
    single convolution" instead. That the normalisation and the ReLU stay is the likelier reading,
    and the one built here. The paper does not give the order within the block. Ours is that of He
    et al. 2015, convolution, normalisation, ReLU, of which the second half is left out. It makes
    the block NAIS-Net's Eq. 4 with D = 0 and h = 1, which the paper calls the original ResNet,
    with the normalisation before sigma, as in `resnet_dense`.

    Without `batch_norm` the blocks are x + h sigma(C * x + E). As in the NAIS-Net beside it, only
    the transitions and the head are then normalised.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: The number of logits.
        filters: The channels of each stage.
        blocks: The number of blocks of each stage.
        batch_norm: Whether batch normalisation follows the convolution of each block.
        step_size: h, in (0, 1].
        activation: `"relu"` or `"tanh"`.
        name: The model's name.

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
            return BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(state)
        # Without normalisation, He's variance of 2 / fan-in would double the state's variance at
        # each block; a share of it for each block keeps the chain in bounds.
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

    return staged_network(input_shape, num_classes, add_stage, filters=filters, name=name)


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
    name: str = "resnet_dense",
) -> IterativeModel:
    """Build one of NAIS-Net's fully connected ResNets, x(k+1) = x(k) + h sigma(norm(A x(k) + b)).

    B u is added inside sigma where the net is non-autonomous. A is free: nothing keeps these nets
    stable. An autonomous net depends on the image through x(0) = W u + c alone; a non-autonomous
    one starts at zero, as the NAIS block does.

    h is one: the paper calls Eq. 3 "with B = 0, and the step h = 1" the original ResNet, and
    gives its nine ResNets no other step. The initial weights are not published. Ours are small
    enough for a chain of `max_unroll` updates at h = 1: A and B have a standard deviation of
    1 / (max_unroll sqrt(fan-in)), gamma is 1 / max_unroll.

    Args:
        input_shape: The picture's shape, `(height, width, channels)`.
        num_classes: The number of logits.
        shared: SH: all updates share A, b and B. Statistics and scales of the normalisation are
            never shared.
        non_autonomous: NA: the picture drives each update.
        batch_norm: BN: batch normalisation before each activation.
        units: The size of the state.
        max_unroll: The number of updates.
        step_size: h, in (0, 1].
        activation: `"relu"` or `"tanh"`.
        name: The model's name.

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

    # A square Gaussian matrix has a norm of about twice its standard deviation times the root of
    # its side. With this one, at most 2 / max_unroll, the chain multiplies the state's norm by
    # exp(2 h) at most; and the drives of all updates sum up to about one embedding.
    def small():
        return keras.initializers.VarianceScaling(1 / max_unroll**2)

    def state_part(suffix):
        return keras.layers.Dense(units, kernel_initializer=small(), name=f"A{suffix}")

    def drive(suffix):
        return keras.layers.Dense(
            units, use_bias=False, kernel_initializer=small(), name=f"B{suffix}"
        )(flat)

    suffixes = [""] * max_unroll if shared else range(1, max_unroll + 1)
    parts = {suffix: state_part(suffix) for suffix in suffixes}
    if non_autonomous:
        drives = {suffix: drive(suffix) for suffix in parts}
        state = keras.ops.zeros_like(drives[suffixes[0]])
    else:
        state = keras.layers.Dense(units, name="embedding")(flat)
    for k, suffix in enumerate(suffixes, start=1):
        transfer = parts[suffix](state)
        if non_autonomous:
            transfer = keras.layers.Add(name=f"drive{k}")([transfer, drives[suffix]])
        if batch_norm:
            # A normalised transfer is of order gamma, whatever A is.
            transfer = BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM,
                gamma_initializer=keras.initializers.Constant(1 / max_unroll),
                name=f"norm{k}",
            )(transfer)
        state = ResidualUpdate(step_size, activation, name=f"update{k}")([state, transfer])
    return IterativeModel(inputs, classifier(state, num_classes), name=name)
