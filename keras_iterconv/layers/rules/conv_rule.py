"""The rules of the convolutional NAIS-Net block."""

from typing import Any

import numpy as np

from keras_iterconv.layers.rules.rows import NON_EXPANSIVE, NOT_FINITE, ONE_POINT, ConvRow
from keras_iterconv.layers.rules.unrolled import infinity_gain, stacked
from keras_iterconv.projections import write_center

# Tolerance for the float32 rounding of the projections.
ROUNDING = 1e-5


def conv_kernels(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return C as used, `[updates, k, k, filters, filters]`, and delta, `[updates, filters]`.

    The centre taps are computed from delta, not read from the stored kernel.
    """
    C = stacked(layer, layer.C)
    delta = (
        np.zeros((len(C), layer.filters)) if layer.delta is None else stacked(layer, layer.delta)
    )
    return write_center(C, delta).numpy(), delta


def conv_row_factors(layer: Any) -> np.ndarray:
    """Return the row sums of |I + h C| for each update and channel, `[updates, filters]`.

    At the image's border a row has fewer taps, so the sum is an upper bound there.
    """
    C, delta = conv_kernels(layer)
    h = layer.step_size
    others = np.abs(C).sum(axis=(1, 2, 3)) - np.abs(1 + delta)
    return np.abs(1 - h * (1 + delta)) + h * others


def conv_row(layer: Any) -> ConvRow:
    """Return the certificate's row of a convolutional block."""
    C, delta = conv_kernels(layer)
    others = np.abs(C).sum(axis=(1, 2, 3)) - np.abs(1 + delta)
    excess = np.maximum(
        others - (1 - layer.margin - np.abs(delta)), np.abs(delta) - (1 - layer.center_margin)
    ).max()
    factor = float(conv_row_factors(layer).max())
    within = bool(excess <= ROUNDING)
    # For a slope s between 0 and 1 the row sum is |1 - h s (1 + delta)| + h s others. It is convex
    # in s, so it is largest at s = 0, where it is 1, or at s = 1: factor <= 1 suffices.
    holds = within and factor < 1
    reason = None
    if not holds:
        reason = "the weights violate Algorithm 2's bound: apply its projection"
        if not np.isfinite(factor):
            reason = NOT_FINITE
        elif within:
            reason = "the margin is smaller than the rounding error: a row sum is not below 1"
    if not layer.tied:
        what = (
            "each update is non-expansive, all in one norm: convergence of the whole block is not "
            "implied"
        )
    else:
        what = ONE_POINT if layer.activation == "tanh" else NON_EXPANSIVE
    return ConvRow(
        name=layer.name,
        kind=type(layer).__name__,
        norm="infinity",
        factor=factor,
        guarantee=what,
        reference="NAIS-Net, Theorems 1 and 3",
        holds=holds,
        reason=reason,
        taps=float(others.max()),
        delta=float(np.abs(delta).max()),
        excess=float(excess),
        within_bound=within,
    )


def conv_block_gain(layer: Any) -> float:
    """Return a Lipschitz bound of a NAISConv2D from U to its last state, infinity norm."""
    D = np.asarray(layer.D, np.float64)
    drive = np.abs(D if not layer.tied else D[None]).sum(axis=(1, 2, 3))
    return infinity_gain(
        layer, float(layer.initial_state == "input"), conv_row_factors(layer), drive
    )
