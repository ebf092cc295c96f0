"""NAIS blocks with drawn weights on the bounds of the papers' algorithms, in float64."""

from typing import Any, NamedTuple

import numpy as np

import keras_iterconv as ki

SAMPLES, UNITS, CHANNELS, IMAGE = 8, 16, 12, (5, 4, 3)
STEP_SIZE, SHIFT, MARGIN, CENTER_MARGIN = 0.5, 0.05, 0.2, 0.3
# The scale of the inputs: with the second, tanh saturates.
DRIVES = {"mild": 0.1, "strong": 10.0}
KINDS = ("dense", "convolutional")


class Setting(NamedTuple):
    """A block, and what its trajectories start from.

    Attributes:
        block: The block.
        inputs: u, `[N, ...]`.
        perturbation: w, of the same shape.
        start: x(0), `[N, ...]`.
        other: Another x(0).
    """

    block: Any
    inputs: np.ndarray
    perturbation: np.ndarray
    start: np.ndarray
    other: np.ndarray


def draw_setting(
    kind: str, activation: str, drive: str = "mild", tied: bool = True, updates: int = 100
) -> Setting:
    """Return a block of a kind with drawn weights that were projected onto its constraints.

    Args:
        kind: One of `KINDS`.
        activation: `"relu"` or `"tanh"`.
        drive: A name of `DRIVES`, the scale of the inputs.
        tied: Whether all updates share the weights.
        updates: The number of updates that an untied block has weights for.
    """
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {
        "max_unroll": updates,
        "step_size": STEP_SIZE,
        "activation": activation,
        "tied": tied,
        "dtype": "float64",
    }
    shape: tuple[int, ...]
    state: tuple[int, ...]
    block: Any
    if kind == "dense":
        block = ki.NAISDense(UNITS, shift=SHIFT, **options)
        shape, state = (SAMPLES, CHANNELS), (SAMPLES, UNITS)
    else:
        block = ki.NAISConv2D(IMAGE[-1], margin=MARGIN, center_margin=CENTER_MARGIN, **options)
        shape = state = (SAMPLES, *IMAGE)
    block.build((None, *shape[1:]))
    draw_weights(block, rng)
    inputs = DRIVES[drive] * rng.normal(size=shape)
    perturbation = 0.1 * DRIVES[drive] * rng.normal(size=shape)
    return Setting(block, inputs, perturbation, *rng.normal(size=(2, *state)))


def draw_weights(block: Any, rng: np.random.Generator) -> None:
    """Assign normal draws to a block's weights, projected where they are constrained.

    They are so large that the projections act, apart from the input weights, which keep about the
    size of their inputs.
    """
    for weight in block.weights:
        scale = 1.0 if weight.constraint is not None else 1 / np.sqrt(np.prod(weight.shape[-2:]))
        weight.assign(scale * rng.normal(size=weight.shape))
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
    # The projection of C reads delta, which may have been assigned later.
    for weight in block.weights:
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
