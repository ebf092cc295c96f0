"""Lipschitz bounds of single layers, in the 2-norm and in the infinity norm.

The activations of the NAIS blocks have slopes from 0 to 1. So the states of two inputs differ by
dx+ = dx + h S (A dx + B du) after an update, with a diagonal S, 0 <= S <= 1, that depends on both
states. The bounds hold for every such S.
"""

import keras
import numpy as np

from keras_iterconv.certificates.blocks import (
    conv_row_factors,
    dense_matrices,
)
from keras_iterconv.certificates.norms import conv_norm, matrix_norm
from keras_iterconv.layers import NAISConv2D, NAISDense, ResidualFunction
from keras_iterconv.layers.residual_function import folded_kernel

ACTIVATION_SLOPES = {
    keras.activations.linear: 1.0,
    keras.activations.relu: 1.0,
    keras.activations.relu6: 1.0,
    keras.activations.leaky_relu: 1.0,
    keras.activations.tanh: 1.0,
    keras.activations.elu: 1.0,
    keras.activations.softplus: 1.0,
    keras.activations.sigmoid: 0.25,
    # p (1 - p) on the diagonal and -p q beside it: at most 1/2 in both norms.
    keras.activations.softmax: 0.5,
}


def dense_block_gain(layer: NAISDense, norm: str) -> float:
    """Return a Lipschitz bound of a NAISDense from its input u to its last state."""
    P, B = dense_matrices(layer)
    if not np.isfinite(P).all() or (B is not None and not np.isfinite(B).all()):
        return float("nan")
    start = float(layer.initial_state == "input")
    drive = [0.0] * len(P) if B is None else [matrix_norm(part, norm) for part in B]
    if norm == "infinity":
        diagonal = np.diagonal(P, axis1=1, axis2=2)
        h = layer.step_size
        factors = np.abs(1 - h * diagonal) + h * (np.abs(P).sum(axis=2) - np.abs(diagonal))
        rows = np.zeros_like(factors) if B is None else np.abs(B).sum(axis=1)
        return _infinity_gain(layer, start, factors, rows)
    values = np.linalg.eigvalsh(P)
    stretch = [_dense_stretch(layer.step_size, found) for found in values]
    if layer.tied:
        return _tied_dense_gain(layer, start, P[0], None if B is None else B[0], stretch[0])
    # P differs from update to update, so only the product of 2-norms is a bound.
    gain = start
    for q, b in zip(stretch, drive, strict=True):
        gain = q * gain + layer.step_size * b
    return gain


def _dense_stretch(h: float, values: np.ndarray) -> float:
    """Return a bound of ||I - h S P||_2 over all S.

    With c halfway between the extreme eigenvalues of P, I - h S P = (I - h c S) - h S (P - c I).
    """
    center, spread = (values[-1] + values[0]) / 2, (values[-1] - values[0]) / 2
    return float(max(1.0, abs(1 - h * center)) + h * spread)


def _tied_dense_gain(layer, start: float, P, B, stretch: float) -> float:
    """Return the smaller of two bounds of ||dx(K)|| / ||du|| in the 2-norm.

    Without drives, j updates increase the norm of a difference by a factor of at most
    s_j = min(q^j, sqrt(kappa)). q is the bound of one update in the 2-norm. Where h ||P|| <= 2 an
    update is non-expansive in the P-norm, and the two norms differ by a factor of at most
    sqrt(kappa), kappa being the condition number of P.

    The first bound adds the drives of all updates: ||dx(K)|| <= s_K ||dx(0)|| +
    h ||B|| sum_{j<K} s_j ||du||. S stands left of B, so only ||S B|| <= ||B|| can be used.
    The second bound is centred on w = P^-1 B du, where the update vanishes: dx+ - w =
    (I - h S P)(dx - w), so ||dx(K)|| <= ||w|| + s_K ||dx(0) - w||. It does not grow with K.
    """
    h, values = layer.step_size, np.linalg.eigvalsh(P)
    limit = float("inf")
    if h * values[-1] <= 2 and values[0] > 0:
        limit = float(np.sqrt(values[-1] / values[0]))
    power, total = 1.0, 0.0
    for _ in range(layer.max_unroll):
        total += power
        power = min(power * stretch, limit)
    if B is None:
        return start * power
    first = start * power + h * matrix_norm(B, "2") * total
    if values[0] <= 0:
        return first
    w = np.linalg.solve(P, B.T)
    identity = start * np.eye(*w.shape)
    second = np.linalg.norm(w, 2) + power * np.linalg.norm(identity - w, 2)
    return float(min(first, second))


def conv_block_gain(layer: NAISConv2D) -> float:
    """Return a Lipschitz bound of a NAISConv2D from U to its last state, infinity norm."""
    D = np.asarray(layer.D, np.float64)
    drive = np.abs(D if not layer.tied else D[None]).sum(axis=(1, 2, 3))
    return _infinity_gain(
        layer, float(layer.initial_state == "input"), conv_row_factors(layer), drive
    )


def _infinity_gain(layer, gain: float, factors, drive) -> float:
    """Return a bound of ||dx(K)|| / ||du|| after all K updates, infinity norm.

    Row c of the new difference is at most (|1 - h s a| + h s o) ||dx|| + h s b ||du||, with a the
    diagonal entry of P, o the sum of |other entries| of that row, and b the sum of |entries| of
    the row of B. It is convex in the slope s, so it is largest at s = 0, where it is ||dx||, or at
    s = 1, where it is f_c ||dx|| + h b_c ||du||. Where all f_c < 1 it is bounded for any number of
    updates, by the largest h b_c / (1 - f_c), or by the initial gain where that is larger.

    Args:
        layer: The block.
        gain: ||dx(0)|| / ||du||, 0 or 1.
        factors: Row sums f, `[updates, rows]`; one update for tied weights.
        drive: Row sums b, of the same shape.
    """
    for k in range(layer.max_unroll):
        weights_index = 0 if layer.tied else k
        rows = factors[weights_index] * gain + layer.step_size * drive[weights_index]
        moved = np.maximum(gain, rows).max()
        if moved == gain and layer.tied:
            break
        gain = float(moved)
    return gain


def function_bounds(layer: ResidualFunction) -> list[float]:
    """Return the Lipschitz bound of each capped f of a residual layer, in the infinity norm."""
    found = []
    for block in layer.block_values():
        divisor = 1.0 if layer.lipschitz_cap is None else float(block.divisor)
        first, second = folded_kernel(block), block.kernel2
        found.append(
            conv_norm(first, None, "infinity") * conv_norm(second, None, "infinity") / divisor
        )
    return found
