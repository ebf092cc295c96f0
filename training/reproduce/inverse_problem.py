"""The toy inverse problem of Lippl et al.: an algorithm, nets that could be it, and tests of both.

An observation x = alpha z is inverted by an error-corrective algorithm and by nets of blocks. Three
disturbances of the blocks show what an iteration would bear: reading out early, leaving a block
out, and repeating the last one.

Reference:
    Lippl, Peters, Kriegeskorte 2024, Fig. 1.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from keras_iterconv._support.checks import check_between, check_choice, check_positive_int

ALPHA = (1.5, 0.75)
EPSILON = (0.3, 0.8)
KINDS = ("feedforward", "resnet", "recurrent")
# L gives none of these. Eight blocks bring the algorithm to the error that the nets train to.
BLOCKS = 8
WIDTH = 16
HIDDEN = 32
TRAINING_STEPS = 2000
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
# Two-norm over all weights: one set of weights through eight blocks has steep spots.
CLIP_NORM = 1.0
EXTRA_STEPS = 16
TEST_SAMPLES = 1000
# Streams apart from the weights', which start from the bare seed, and from each other.
TRAINING_STREAM, TEST_STREAM = 1, 2


def sample_latents(samples: int, seed: int, stream: int) -> np.ndarray:
    """Draw z uniformly from the square [-1, 1] x [-1, 1]: `[samples, 2]`, float32."""
    return np.random.default_rng((seed, stream)).uniform(-1, 1, (samples, 2)).astype("float32")


def forward_model(z, alpha: Sequence[float] = ALPHA) -> np.ndarray:
    """Return the observation x = alpha z, with z's shape `[N, n]` and dtype."""
    z = np.asarray(z)
    return z * np.asarray(alpha, z.dtype)


def correct(z, x, alpha: Sequence[float] = ALPHA, epsilon: Sequence[float] = EPSILON) -> np.ndarray:
    """Make one update of the estimate, z - s epsilon (alpha z - x) with s = sign(alpha)."""
    alpha, epsilon = np.asarray(alpha, float), np.asarray(epsilon, float)
    return z - np.sign(alpha) * epsilon * (alpha * z - x)


def error_corrective(
    x, steps: int = BLOCKS, alpha: Sequence[float] = ALPHA, epsilon: Sequence[float] = EPSILON
) -> np.ndarray:
    """Invert the forward model by the error-corrective algorithm, from z(0) = x.

    The error shrinks by 1 - |alpha| epsilon a step.

    Args:
        x: Observations, `[N, n]`.
        steps: T, the number of updates.
        alpha: The forward model's factors, n of them, of either sign.
        epsilon: n step sizes, with 0 < |alpha| epsilon < 2.

    Returns:
        z(0) to z(T), `[steps + 1, N, n]`, float64.

    Raises:
        ValueError: The updates would not converge, or the shapes do not fit.
    """
    alpha, epsilon = check_steps(alpha, epsilon)
    steps = check_positive_int("steps", steps)
    x = np.asarray(x, float)
    if x.ndim != 2 or x.shape[1] != len(alpha):
        raise ValueError(f"`x` must have the shape [N, {len(alpha)}]. Received: x.shape={x.shape}")
    path = [x]
    for _ in range(steps):
        path.append(correct(path[-1], x, alpha, epsilon))
    return np.stack(path)


def check_steps(alpha: Sequence[float], epsilon: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and epsilon as float64 arrays of one length, where the updates converge.

    L says that any epsilon up to 1 does; what counts is 0 < |alpha| epsilon < 2.

    Raises:
        ValueError: They would not, or the lengths differ.
    """
    factors, sizes = np.asarray(alpha, float), np.asarray(epsilon, float)
    if factors.ndim != 1 or factors.shape != sizes.shape or not len(factors):
        raise ValueError(
            "`alpha` and `epsilon` must be flat and as long as each other. "
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
    """An encoder, T blocks from state to state, and a linear decoder that reads any state out.

    Attributes:
        encoder: From the observation `[N, 2]` to the first state.
        blocks: Keras models; T times the same one where the net is recurrent.
        decoder: From a state to z, `[N, 2]`.
        model: The whole as one Keras model.
    """

    encoder: keras.Layer
    blocks: tuple[keras.Model, ...]
    decoder: keras.Layer
    model: keras.Model


def _chain(size: int, encoder, blocks, decoder, dtype=None) -> BlockNet:
    """Build the model that runs all blocks once."""
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
    """Write the error-corrective algorithm as a recurrent residual net.

    The state is (x, z), first (x, x). A block computes the errors p = ReLU(alpha z - x) and
    n = ReLU(x - alpha z), and adds (0, s epsilon (n - p)) to the state.

    Args:
        blocks: T, how often the block is applied.
        alpha: The forward model's factors, n of them, of either sign.
        epsilon: n step sizes, with 0 < |alpha| epsilon < 2.
        dtype: The precision of weights and states.

    Returns:
        A net whose readouts are z(0) to z(T) of `error_corrective`.

    Raises:
        ValueError: The updates would not converge.
    """
    blocks = check_positive_int("blocks", blocks)
    alpha, epsilon = check_steps(alpha, epsilon)
    one = np.eye(len(alpha))
    zero = np.zeros_like(one)
    step = np.diag(np.sign(alpha) * epsilon)

    def dense(units: int, kernel: np.ndarray) -> keras.layers.Dense:
        layer = keras.layers.Dense(units, use_bias=False, dtype=dtype)
        layer.build((None, len(kernel)))
        layer.set_weights([kernel])
        return layer

    size = len(alpha)
    state = keras.Input((2 * size,), dtype=dtype)
    errors = dense(2 * size, np.block([[-one, one], [np.diag(alpha), -np.diag(alpha)]]))(state)
    errors = keras.layers.ReLU(dtype=dtype)(errors)
    update = dense(2 * size, np.block([[zero, -step], [zero, step]]))(errors)
    block = keras.Model(state, keras.layers.Add(dtype=dtype)([state, update]))
    encoder = dense(2 * size, np.hstack([one, one]))
    decoder = dense(size, np.vstack([zero, one]))
    return _chain(size, encoder, [block] * blocks, decoder, dtype)


def make_net(
    kind: str, seed: int = 0, *, blocks: int = BLOCKS, update_scale: float = 1.0
) -> BlockNet:
    """Build an untrained net: a block is Dense(32), ReLU, Dense(16), between states of 16.

    Glorot's uniform weights, Keras's default, are drawn from the seed alone, so that at one seed
    the feed-forward net and the ResNet differ in nothing but the addition.

    Args:
        kind: `"feedforward"`: a block's output is the next state; `"resnet"`: it is added to the
            state; `"recurrent"`: the same, with one set of weights for all blocks.
        seed: Of the weights.
        blocks: T, the number of blocks.
        update_scale: Factor on the initial weights of the second layer of each residual block; a
            small one starts the blocks near the identity. The feed-forward net has no use for it.

    Raises:
        ValueError: An argument is out of its range.
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
    """Train a net to invert x = (3/2 z1, 3/4 z2), on fresh examples in each step.

    Adam on the mean squared error of the last readout, batches of 128, the learning rate from
    3e-3 to zero on a cosine. On one CPU a seed repeats the weights bit for bit.

    Args:
        kind: See `make_net`.
        seed: Of weights and examples; nets of one seed see the same examples.
        training_steps: Optimizer steps.
        blocks: T, the number of blocks.
        update_scale: See `make_net`.

    Raises:
        ValueError: An argument is out of its range.
    """
    net = make_net(kind, seed, blocks=blocks, update_scale=update_scale)
    training_steps = check_positive_int("training_steps", training_steps)
    z = sample_latents(training_steps * BATCH_SIZE, seed, TRAINING_STREAM)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, training_steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=CLIP_NORM)
    net.model.compile(optimizer, loss="mse")
    net.model.fit(forward_model(z), z, batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    return net


def read_out(net: BlockNet, x, schedule: Iterable[int]) -> np.ndarray:
    """Run the blocks of a schedule, and decode the state before the first and after each.

    Args:
        net: The net.
        x: Observations, `[N, n]`.
        schedule: Numbers of blocks, 0 to T - 1, in the order of their use.

    Returns:
        `[len(schedule) + 1, N, n]`.
    """
    state = net.encoder(keras.ops.convert_to_tensor(x))
    path = [net.decoder(state)]
    for number in schedule:
        state = net.blocks[number](state)
        path.append(net.decoder(state))
    return np.stack([keras.ops.convert_to_numpy(readout) for readout in path])


@dataclasses.dataclass(frozen=True)
class Readouts:
    """What a net of T blocks says under the three disturbances.

    Attributes:
        early: After each block, from 0 (the encoder alone) to T, `[T + 1, N, 2]`.
        left_out: A path for each block left out, from the encoder alone to the end,
            `[T, T, N, 2]`.
        repeated: With the last block applied 0 to 16 more times, `[17, N, 2]`.
    """

    early: np.ndarray
    left_out: np.ndarray
    repeated: np.ndarray


def disturb(net: BlockNet, x, extra_steps: int = EXTRA_STEPS) -> Readouts:
    """Read a net out early, with each block left out, and with the last one repeated.

    Args:
        net: The net.
        x: Observations, `[N, n]`.
        extra_steps: How often the last block is repeated.
    """
    extra_steps = check_positive_int("extra_steps", extra_steps)
    blocks = list(range(len(net.blocks)))
    path = read_out(net, x, blocks + blocks[-1:] * extra_steps)
    left_out = [read_out(net, x, blocks[:k] + blocks[k + 1 :]) for k in blocks]
    return Readouts(path[: len(blocks) + 1], np.stack(left_out), path[len(blocks) :])


def mean_error(readout, z) -> np.ndarray:
    """Return the mean distance from the right answer over N samples, `[..., N, 2]` to `[...]`."""
    return np.linalg.norm(np.asarray(readout, float) - z, axis=-1).mean(axis=-1)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The measured nets.

    Attributes:
        z: The right answers of the pictured inputs, `[M, 2]`.
        paths: By `"algorithm"` and kind, what the first seed's net says on these inputs.
        errors: By `"algorithm"` and kind, `Readouts` of mean errors over the test set with a first
            axis for the seeds: `[S, T + 1]`, `[S, T, T]` and `[S, 17]`; S is 1 for the algorithm.
        chance: The mean error of always saying zero, the best that ignores the input.
    """

    z: np.ndarray
    paths: dict[str, Readouts]
    errors: dict[str, Readouts]
    chance: float


def run_experiment(
    pictured_z,
    seeds: Sequence[int],
    *,
    training_steps: int = TRAINING_STEPS,
    update_scale: float = 1.0,
    report: Callable[[str, int], None] = lambda kind, seed: None,
) -> Experiment:
    """Train a net of each kind for each seed, and disturb them and the algorithm.

    Args:
        pictured_z: The right answers of the inputs whose paths to keep, `[M, 2]`.
        seeds: Of the trainings.
        training_steps: Optimizer steps of each.
        update_scale: See `make_net`.
        report: Called with kind and seed before each training.

    Raises:
        ValueError: An argument is out of its range.
    """
    pictured_z = np.asarray(pictured_z, "float32")
    test_z = sample_latents(TEST_SAMPLES, 0, TEST_STREAM)
    paths, errors = {}, {}

    def measure(name: str, nets: Iterable[BlockNet]) -> None:
        measured = []
        for net in nets:
            readouts = disturb(net, forward_model(test_z))
            measured.append([mean_error(part, test_z) for part in vars(readouts).values()])
            if name not in paths:
                paths[name] = disturb(net, forward_model(pictured_z))
        errors[name] = Readouts(*(np.stack(part) for part in zip(*measured, strict=True)))

    def trained(kind: str) -> Iterable[BlockNet]:
        for seed in seeds:
            report(kind, seed)
            yield train_net(kind, seed, training_steps=training_steps, update_scale=update_scale)

    # The hand-built net is the algorithm, and can be disturbed by the same function.
    measure("algorithm", [hand_built_net()])
    for kind in KINDS:
        measure(kind, trained(kind))
    return Experiment(pictured_z, paths, errors, float(mean_error(np.zeros((1, 2)), test_z)))
