"""The toy inverse problem of Lippl et al.: an algorithm, trained networks and their disturbances.

An observation x = alpha z is inverted by an error-corrective algorithm and by networks of blocks.
Three disturbances test whether a network iterates: reading out early, leaving a block out, and
repeating the last block. An iteration tolerates all three.

Reference:
    Lippl, Peters, Kriegeskorte 2024, Fig. 1.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_iterconv._support.checks import check_between, check_choice, check_positive_int

ALPHA = (1.5, 0.75)
EPSILON = (0.3, 0.8)
KINDS = ("feedforward", "resnet", "recurrent")
# Lippl et al. give none of these values. With eight blocks the algorithm has about the error of the
# trained networks.
BLOCKS = 8
WIDTH = 16
HIDDEN = 32
TRAINING_STEPS = 2000
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
# 2-norm over all weights: with one set of weights in eight blocks the loss has steep regions.
CLIP_NORM = 1.0
EXTRA_STEPS = 16
TEST_SAMPLES = 1000
# The true z of the inputs in the figure: in opposite corners, so that their paths are
# distinguishable.
PICTURED_Z = ((0.7, 0.5), (-0.5, -0.8))
# The block that the figure of Lippl et al. leaves out, counted from 1.
LEFT_OUT = 4
# Second parts of the random seeds, so that training data, test data and initial weights differ.
TRAINING_STREAM, TEST_STREAM = 1, 2


def sample_latents(samples: int, seed: int, stream: int) -> np.ndarray:
    """Return z drawn uniformly from the square [-1, 1] x [-1, 1]: `[samples, 2]`, float32."""
    return np.random.default_rng((seed, stream)).uniform(-1, 1, (samples, 2)).astype("float32")


def forward_model(z: np.ndarray, alpha: Sequence[float] = ALPHA) -> np.ndarray:
    """Return the observation x = alpha z, with z's shape `[N, n]` and dtype."""
    z = np.asarray(z)
    return z * np.asarray(alpha, z.dtype)


def correct(
    z: Any, x: Any, alpha: Sequence[float] = ALPHA, epsilon: Sequence[float] = EPSILON
) -> np.ndarray:
    """Return the updated estimate, z - s epsilon (alpha z - x) with s = sign(alpha)."""
    a, e = np.asarray(alpha, float), np.asarray(epsilon, float)
    return z - np.sign(a) * e * (a * z - x)


def error_corrective(
    x: np.ndarray,
    steps: int = BLOCKS,
    alpha: Sequence[float] = ALPHA,
    epsilon: Sequence[float] = EPSILON,
) -> np.ndarray:
    """Return the estimates of the error-corrective algorithm, which starts from z(0) = x.

    Each step multiplies the error by 1 - |alpha| epsilon.

    Args:
        x: Observations, `[N, n]`.
        steps: Number of updates T.
        alpha: The n factors of the forward model, of either sign.
        epsilon: The n step sizes, with 0 < |alpha| epsilon < 2.

    Returns:
        z(0) to z(T), `[steps + 1, N, n]`, float64.

    Raises:
        ValueError: The updates would not converge, or a shape is wrong.
    """
    check_steps(alpha, epsilon)
    steps = check_positive_int("steps", steps)
    x = np.asarray(x, float)
    if x.ndim != 2 or x.shape[1] != len(alpha):
        raise ValueError(f"`x` must have the shape [N, {len(alpha)}]. Received: x.shape={x.shape}")
    path = [x]
    for _ in range(steps):
        path.append(correct(path[-1], x, alpha, epsilon))
    return np.stack(path)


def check_steps(alpha: Sequence[float], epsilon: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and epsilon as float64 arrays of equal length, for which the updates converge.

    Lippl et al. state that any epsilon up to 1 converges; the condition is
    0 < |alpha| epsilon < 2.

    Raises:
        ValueError: The updates would not converge, or the lengths differ.
    """
    factors, sizes = np.asarray(alpha, float), np.asarray(epsilon, float)
    if factors.ndim != 1 or factors.shape != sizes.shape or not len(factors):
        raise ValueError(
            "`alpha` and `epsilon` must be flat and of equal length. "
            f"Received: alpha={alpha!r}, epsilon={epsilon!r}"
        )
    products = np.abs(factors) * sizes
    if not np.all((products > 0) & (products < 2)):
        raise ValueError(
            "`epsilon` must fulfil 0 < |alpha| * epsilon < 2, or the updates do not converge. "
            f"Received: alpha={alpha!r}, epsilon={epsilon!r}"
        )
    return factors, sizes


@dataclasses.dataclass(frozen=True)
class BlockNet:
    """A network of an encoder, T blocks from state to state, and a linear decoder of any state.

    Attributes:
        encoder: A layer from the observation `[N, 2]` to the first state.
        blocks: T Keras models; T times the same one in a recurrent network.
        decoder: A layer from a state to z, `[N, 2]`.
        model: Encoder, blocks and decoder as one Keras model.
    """

    encoder: keras.Layer
    blocks: tuple[keras.Model, ...]
    decoder: keras.Layer
    model: keras.Model


def _chain(
    size: int, encoder: Any, blocks: Any, decoder: Any, dtype: str | None = None
) -> BlockNet:
    """Return the network that applies each block once."""
    inputs = keras.Input((size,), dtype=dtype)
    state = encoder(inputs)
    for block in blocks:
        state = block(state)
    return BlockNet(encoder, tuple(blocks), decoder, keras.Model(inputs, decoder(state)))


def hand_built_net(
    blocks: int = BLOCKS,
    alpha: Sequence[float] = ALPHA,
    epsilon: Sequence[float] = EPSILON,
    dtype: str = "float32",
) -> BlockNet:
    """Return the error-corrective algorithm as a recurrent residual network.

    The state is (x, z), first (x, x). A block computes the errors p = ReLU(alpha z - x) and
    n = ReLU(x - alpha z), and adds (0, s epsilon (n - p)) to the state.

    Args:
        blocks: Number T of applications of the block.
        alpha: The n factors of the forward model, of either sign.
        epsilon: The n step sizes, with 0 < |alpha| epsilon < 2.
        dtype: The dtype of weights and states.

    Returns:
        A network whose readouts are z(0) to z(T) of `error_corrective`.

    Raises:
        ValueError: The updates would not converge.
    """
    blocks = check_positive_int("blocks", blocks)
    factors, sizes = check_steps(alpha, epsilon)
    one = np.eye(len(factors))
    zero = np.zeros_like(one)
    step = np.diag(np.sign(factors) * sizes)

    def dense(units: int, kernel: np.ndarray) -> keras.layers.Dense:
        layer = keras.layers.Dense(units, use_bias=False, dtype=dtype)
        layer.build((None, len(kernel)))
        layer.set_weights([kernel])
        return layer

    size = len(factors)
    state = keras.Input((2 * size,), dtype=dtype)
    errors = dense(2 * size, np.block([[-one, one], [np.diag(factors), -np.diag(factors)]]))(state)
    errors = keras.layers.ReLU(dtype=dtype)(errors)
    update = dense(2 * size, np.block([[zero, -step], [zero, step]]))(errors)
    block = keras.Model(state, keras.layers.Add(dtype=dtype)([state, update]))
    encoder = dense(2 * size, np.hstack([one, one]))
    decoder = dense(size, np.vstack([zero, one]))
    return _chain(size, encoder, [block] * blocks, decoder, dtype)


def make_net(
    kind: str, seed: int = 0, *, blocks: int = BLOCKS, update_scale: float = 1.0
) -> BlockNet:
    """Return an untrained network; a block is Dense(32), ReLU, Dense(16) on a state of size 16.

    The weights are Glorot uniform, Keras's default, and depend only on the seed: with one seed the
    feed-forward network and the ResNet differ only in the addition.

    Args:
        kind: `"feedforward"`: a block's output is the next state; `"resnet"`: it is added to the
            state; `"recurrent"`: the same, with one set of weights for all blocks.
        seed: Seed of the weights.
        blocks: Number of blocks T.
        update_scale: Factor on the initial weights of the second layer of each residual block; with
            a small factor the blocks start near the identity. The feed-forward network ignores it.

    Raises:
        ValueError: An argument is out of range.
    """
    kind = check_choice("kind", kind, KINDS)
    blocks = check_positive_int("blocks", blocks)
    update_scale = check_between("update_scale", update_scale, 0, 10, closed=True)
    residual = kind != "feedforward"
    rng = np.random.default_rng(seed)

    def dense(units: int, factor: float = 1.0) -> keras.layers.Dense:
        initializer = keras.initializers.VarianceScaling(
            factor**2, "fan_avg", "uniform", seed=int(rng.integers(2**31))
        )
        return keras.layers.Dense(units, kernel_initializer=initializer)

    def block() -> keras.Model:
        state = keras.Input((WIDTH,))
        errors = keras.layers.ReLU()(dense(HIDDEN)(state))
        output = dense(WIDTH, update_scale if residual else 1.0)(errors)
        if residual:
            output = keras.layers.Add()([state, output])
        return keras.Model(state, output)

    encoder, decoder = dense(WIDTH), dense(2)
    chain = [block()] * blocks if kind == "recurrent" else [block() for _ in range(blocks)]
    return _chain(2, encoder, chain, decoder)


def train_net(
    kind: str,
    seed: int = 0,
    *,
    training_steps: int = TRAINING_STEPS,
    blocks: int = BLOCKS,
    update_scale: float = 1.0,
) -> BlockNet:
    """Return a network trained to invert x = (3/2 z1, 3/4 z2), with new samples in each step.

    Adam minimizes the mean squared error of the last readout with batches of 128; the learning rate
    follows a cosine from 3e-3 to zero. On one CPU the weights are reproducible bit for bit.

    Args:
        kind: See `make_net`.
        seed: Seed of weights and samples; all networks of one seed are trained on the same samples.
        training_steps: Number of optimizer steps.
        blocks: Number of blocks T.
        update_scale: See `make_net`.

    Raises:
        ValueError: An argument is out of range.
    """
    net = make_net(kind, seed, blocks=blocks, update_scale=update_scale)
    training_steps = check_positive_int("training_steps", training_steps)
    z = sample_latents(training_steps * BATCH_SIZE, seed, TRAINING_STREAM)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, training_steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=CLIP_NORM)
    net.model.compile(optimizer, loss="mse")
    net.model.fit(forward_model(z), z, batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    return net


def read_out(net: BlockNet, x: np.ndarray, schedule: Iterable[int]) -> np.ndarray:
    """Return the decoded states before the first and after each block of a schedule.

    Args:
        net: The network.
        x: Observations, `[N, n]`.
        schedule: Indices of blocks, 0 to T - 1, in the order of their use.

    Returns:
        The readouts, `[len(schedule) + 1, N, n]`.
    """
    state = net.encoder(keras.ops.convert_to_tensor(x))
    path = [net.decoder(state)]
    for block_index in schedule:
        state = net.blocks[block_index](state)
        path.append(net.decoder(state))
    return np.stack([keras.ops.convert_to_numpy(readout) for readout in path])


@dataclasses.dataclass(frozen=True)
class Readouts:
    """The readouts of a network of T blocks under the three disturbances.

    Attributes:
        early: The readouts after 0 blocks (the encoder alone) to T blocks, `[T + 1, N, 2]`.
        left_out: For each block left out, the readouts from the encoder alone to the last block,
            `[T, T, N, 2]`.
        repeated: The readouts with 0 to 16 extra applications of the last block, `[17, N, 2]`.
    """

    early: np.ndarray
    left_out: np.ndarray
    repeated: np.ndarray


def disturb(net: BlockNet, x: np.ndarray, extra_steps: int = EXTRA_STEPS) -> Readouts:
    """Return the readouts of a network under the three disturbances.

    Args:
        net: The network.
        x: Observations, `[N, n]`.
        extra_steps: Number of extra applications of the last block.
    """
    extra_steps = check_positive_int("extra_steps", extra_steps)
    blocks = list(range(len(net.blocks)))
    path = read_out(net, x, blocks + blocks[-1:] * extra_steps)
    left_out = [read_out(net, x, blocks[:k] + blocks[k + 1 :]) for k in blocks]
    return Readouts(path[: len(blocks) + 1], np.stack(left_out), path[len(blocks) :])


def mean_error(readout: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the mean distance from the true z over N samples, `[..., N, 2]` to `[...]`."""
    return np.linalg.norm(np.asarray(readout, float) - z, axis=-1).mean(axis=-1)


@dataclasses.dataclass(frozen=True)
class Measurements:
    """The measurements of all networks.

    Attributes:
        z: The true z of the inputs shown in the figure, `[M, 2]`.
        paths: For `"algorithm"` and each kind, the readouts of the first seed's network for these
            inputs.
        errors: For `"algorithm"` and each kind, `Readouts` of mean errors over the test set with a
            first axis for the seeds: `[S, T + 1]`, `[S, T, T]` and `[S, 17]`; S is 1 for the
            algorithm.
        chance: The mean error of the constant prediction 0, the best one that ignores the input.
    """

    z: np.ndarray
    paths: dict[str, Readouts]
    errors: dict[str, Readouts]
    chance: float


def measure_net(net: BlockNet) -> Readouts:
    """Return the mean errors of a network's readouts over the test set.

    Returns:
        `Readouts` of errors: `[T + 1]`, `[T, T]` and `[17]`.
    """
    z = sample_latents(TEST_SAMPLES, 0, TEST_STREAM)
    readouts = disturb(net, forward_model(z))
    return Readouts(*(mean_error(readout, z) for readout in vars(readouts).values()))


def chance_error() -> float:
    """Return the mean error of the constant prediction 0 over the test set."""
    z = sample_latents(TEST_SAMPLES, 0, TEST_STREAM)
    return float(mean_error(np.zeros((1, 2)), z))
