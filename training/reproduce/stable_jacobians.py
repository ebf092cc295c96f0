"""Jacobians of NAIS blocks as matrices, and their oscillation for a relaxed bound."""

from typing import Any

import numpy as np

import keras_iterconv as ki
from keras_iterconv.layers.protocol import rows_of
from keras_iterconv.layers.rules.conv_rule import conv_kernels

from .readouts import as_json
from .stable_blocks import IMAGE
from .stable_trajectories import follow, limit_of

DRAWS = 200
# The smallest slope of the drawn Jacobians, sigma underline in Eq. 7.
FLOOR = 0.05
UPDATES = 30
# A state so small that tanh differs from the identity by less than rounding.
TINY = 1e-8


def state_jacobian(block: Any) -> np.ndarray:
    """Return A as a matrix on flat states, `[n, n]`: from the effect of an update near zero.

    At a state, an input and a bias of zero the pre-activation is zero, where tanh has the slope 1.

    Args:
        block: A built, tied tanh block; its bias is set to zero during the call.
    """
    (bias,) = [weight for weight in block.weights if weight.name in ("b", "E")]
    before = bias.numpy()
    bias.assign(np.zeros_like(before))
    image = IMAGE[:2] if block.input_spec.ndim == 4 else ()
    size = int(np.prod((*image, block.state_channels)))
    states = TINY * np.eye(size).reshape(size, *image, block.state_channels)
    inputs = np.zeros((size, *image, block.input_spec.axes[-1]))
    change = block.update(states, inputs).numpy() - states
    bias.assign(before)
    return change.reshape(size, size).T / (TINY * block.step_size)


def measure_jacobians(block: Any) -> dict[str, Any]:
    """Return spectral radii and norms of the Jacobians I + h S A of a block.

    Returns:
        `radius`: the spectral radius for slopes of 1; `drawn_radius`: the largest for slopes that
        are drawn from `FLOOR` to 1, half of them at one of the ends; `norm`: for a convolution the
        infinity norm for slopes of 1, and `lemma`: the largest deviation of the matrix A from what
        Lemma 1 says of its diagonal and its rows; None for a dense block.
    """
    A, h = state_jacobian(block), block.step_size
    rng = np.random.default_rng(1)
    one = np.eye(len(A))

    def radius(slopes: np.ndarray) -> float:
        return float(np.abs(np.linalg.eigvals(one + h * slopes[:, None] * A)).max())

    drawn = []
    for _ in range(DRAWS):
        slopes = rng.uniform(FLOOR, 1, len(A))
        ends = np.where(rng.random(len(A)) < 0.5, FLOOR, 1.0)
        drawn.append(radius(np.where(rng.random() < 0.5, slopes, ends)))
    (row,) = rows_of(block, None)
    is_convolution = row.norm == "infinity"
    return {
        "radius": as_json(radius(np.ones(len(A)))),
        "drawn_radius": as_json(max(drawn)),
        "norm": as_json(np.abs(one + h * A).sum(axis=1).max()) if is_convolution else None,
        "lemma": as_json(_lemma_error(block, A)) if is_convolution else None,
    }


def _lemma_error(block: Any, A: np.ndarray) -> float:
    """Return the largest deviation of A from Lemma 1.

    The diagonal must hold -1 - delta of the row's channel, and a row of a pixel inside the image
    the other taps of this channel's filter, here compared as sorted numbers.
    """
    C, delta = (part[0] for part in conv_kernels(block))
    filters = block.filters
    error = np.abs(np.diagonal(A) - np.tile(-1 - delta, len(A) // filters)).max()
    height, width = IMAGE[:2]
    rows = A.reshape(height, width, filters, -1)[1:-1, 1:-1]
    for channel in range(filters):
        taps = np.sort(C[..., channel], axis=None)
        for row in rows[:, :, channel].reshape(-1, A.shape[1]):
            found = np.sort(row[row != 0])
            error = max(error, np.abs(found - taps).max() if found.shape == taps.shape else np.inf)
    return float(error)


def measure_oscillation(relaxed: bool) -> dict[str, Any]:
    """Return how a dense block approaches its steady state along its fastest direction.

    R has rank 1, so that ||R'R||_F, which is the bound, is an eigenvalue; the step is 1.

    Args:
        relaxed: Whether the bound is 2 (1 - shift), else 1 - 2 shift.

    Returns:
        `eigenvalues`: the smallest and the largest of the update's Jacobian at slopes of 1;
        `curve`: the coordinate of the state less the steady state by update; `turns`: the number of
        its changes of sign; `last`: its last value as a share of the first.
    """
    shift = 0.05
    bound = 2 * (1 - shift) if relaxed else 1 - 2 * shift
    block = ki.NAISDense(
        4, 10, step_size=1.0, activation="tanh", shift=shift, rank=1, bound=bound, dtype="float64"
    )
    block.build((None, 4))
    rng = np.random.default_rng(0)
    block.R.assign(block.R.constraint(10 * rng.normal(size=block.R.shape)))
    inputs = 0.1 * rng.normal(size=(1, 4))
    limit = limit_of(block, inputs, np.zeros((1, 4)), 5000)
    values, vectors = np.linalg.eigh(block.state_matrix().numpy())
    start = limit + 1e-3 * vectors[:, 0]
    curve = (follow(block, inputs, start, UPDATES) - limit)[:, 0] @ vectors[:, 0]
    # What is smaller than a rounding error of the steady state has no sign.
    kept = curve[np.abs(curve) > 1e-12]
    return {
        "eigenvalues": as_json([1 + values[0], 1 + values[-1]]),
        "curve": as_json(curve),
        "turns": int((np.diff(np.sign(kept)) != 0).sum()),
        "last": as_json(curve[-1] / curve[0]),
    }
