"""Trajectories of NAIS blocks, and the bounds that hold for them.

A block's states are compared in the norm of its certificate. For a dense block that is the P-norm,
|d| = sqrt(d'P d) with P = -A; for a convolutional one it is the infinity norm.

Two states with the pre-activations z and y differ after an update by d + h S A d: S holds the
slopes of the secants, (sigma(z) - sigma(y)) / (z - y). At a steady state of a tanh block y = 0, so
that a secant's slope tanh(z) / z is at least the slope tanh'(z). Hence the smallest slope on the
states visited, the floor of Eq. 7, bounds S from below, and gives a rate that is proven.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_iterconv.layers.protocol import rows_of
from keras_iterconv.layers.rules.conv_rule import conv_kernels
from keras_iterconv.layers.rules.dense_rule import dense_matrices

# Added to a bound before a distance is divided by it, as a share of the first distance.
ROUNDING = 1e-12


class Geometry(NamedTuple):
    """The norm in which a block is stable, and the constants of its bounds.

    Attributes:
        norm: Function from differences of states `[N, ...]` to their norms `[N]`.
        input_norm: Function from differences of inputs `[N, ...]` to their norms `[N]`.
        stated_rate: The factor of one update for slopes of 1, which NAIS-Net states as the rate.
        rate: Function from the smallest slope to the factor of one update that is proven for it.
        drive: The largest norm of S B w for an input difference w of norm 1 and slopes S up to 1.
    """

    norm: Callable[[np.ndarray], np.ndarray]
    input_norm: Callable[[np.ndarray], np.ndarray]
    stated_rate: float
    rate: Callable[[float], float]
    drive: float


def geometry_of(block: Any, k: int = 0) -> Geometry:
    """Return the geometry of update k of a NAIS block; an untied block has one for each update."""
    (row,) = rows_of(block, None)
    return _conv_geometry(block, k) if row.norm == "infinity" else _dense_geometry(block, k)


def _dense_geometry(block: Any, k: int) -> Geometry:
    matrices, drives = dense_matrices(block)
    P, B = matrices[k], None if drives is None else drives[k]
    values, h = np.linalg.eigvalsh(P), block.step_size

    def rate(floor: float) -> float:
        # |d+|^2 = |d|^2 - y'(2 h S - h^2 S P S) y with y = P d. As S P S <= |P| S, the last term is
        # at least h (2 - h |P|) floor |y|^2, and |y|^2 is at least the smallest eigenvalue times
        # |d|^2.
        return float(np.sqrt(1 - h * floor * (2 - h * values[-1]) * values[0]))

    return Geometry(
        norm=lambda d: np.sqrt(np.einsum("...i,ij,...j", d, P, d)),
        input_norm=lambda w: np.linalg.norm(w, axis=-1),
        stated_rate=float(np.abs(1 - h * values).max()),
        rate=rate,
        # S stands left of B, so that B's 2-norm counts, and not that of P^(1/2) B.
        drive=0.0 if B is None else float(np.sqrt(values[-1]) * np.linalg.norm(B, 2)),
    )


def _conv_geometry(block: Any, k: int) -> Geometry:
    C, delta = (part[k] for part in conv_kernels(block))
    others = np.abs(C).sum(axis=(0, 1, 2)) - np.abs(1 + delta)
    D = np.asarray(block.D, np.float64)
    h = block.step_size

    def factors(slope: float) -> np.ndarray:
        return np.abs(1 - h * slope * (1 + delta)) + h * slope * others

    def largest(d: np.ndarray) -> np.ndarray:
        return np.abs(d).max(axis=(-3, -2, -1))

    return Geometry(
        norm=largest,
        input_norm=largest,
        stated_rate=float(factors(1).max()),
        # A row's factor is convex in its slope, so that it is largest at one of the ends.
        rate=lambda floor: float(np.maximum(factors(floor), factors(1)).max()),
        drive=float(np.abs(D if block.tied else D[k]).sum(axis=(0, 1, 2)).max()),
    )


def follow(block: Any, inputs: Any, start: Any, updates: int) -> np.ndarray:
    """Return the states from a start on, `[updates + 1, N, ...]`."""
    inputs, states = tf.convert_to_tensor(inputs), [tf.convert_to_tensor(start)]
    # Traced once for a tied block, whose updates are all the same.
    step = tf.function(block.update) if block.tied else block.update
    for k in range(updates):
        states.append(step(states[-1], inputs, 0 if block.tied else k))
    return np.stack(states)


def limit_of(block: Any, inputs: Any, start: Any, updates: int) -> np.ndarray:
    """Return the state of a tied block after a large number of updates, `[N, ...]`."""
    update = block.build_update(tf.convert_to_tensor(inputs))
    return block.iterate(update, tf.convert_to_tensor(start), updates, 0.0).state.numpy()


def slope_floor(block: Any, states: np.ndarray) -> float:
    """Return the smallest slope of the activation on the states of a trajectory (Eq. 7)."""
    values = np.diff(states, axis=0) / block.step_size
    slopes = 1 - values**2 if block.two_sided else (values > 0).astype(float)
    return float(np.clip(slopes.min(), 0, 1))


def worst_share(distances: np.ndarray, bounds: np.ndarray) -> float:
    """Return the largest distance as a share of its bound: up to 1 where no bound is broken.

    Args:
        distances: The distances, `[K + 1, N]`.
        bounds: The bounds, of the same shape.
    """
    slack = ROUNDING * np.maximum(distances[:1], bounds[:1])
    # A bound of exactly 0 with a distance of 0 is kept.
    return float((distances / np.maximum(bounds + slack, np.finfo(float).tiny)).max())


def decay(rate: float, first: np.ndarray, updates: int) -> np.ndarray:
    """Return rate^k times the first distances for k = 0 to `updates`, `[updates + 1, N]`."""
    return rate ** np.arange(updates + 1)[:, None] * first


def largest_expansion(block: Any, path: np.ndarray, other: np.ndarray) -> float:
    """Return the largest factor by which an update changes the distance of two trajectories.

    Args:
        block: The block; each update of an untied one has a norm of its own.
        path: The states of one trajectory, `[K + 1, N, ...]`.
        other: Those of another with the same inputs.
    """
    difference = path - other
    first = geometry_of(block).norm(difference[0])
    factors = []
    for k in range(len(path) - 1):
        norm = geometry_of(block, 0 if block.tied else k).norm
        before, after = norm(difference[k]), norm(difference[k + 1])
        # Distances of the size of rounding errors say nothing.
        factors.append(np.where(before > 1e-9 * first, after / np.maximum(before, 1e-300), 0))
    return float(np.max(factors))
