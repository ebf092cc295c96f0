"""The rules of the fully connected NAIS-Net block."""

from typing import Any

import numpy as np

from keras_iterconv.layers.rules.norms import matrix_norm
from keras_iterconv.layers.rules.rows import NON_EXPANSIVE, NOT_FINITE, ONE_POINT, DenseRow
from keras_iterconv.layers.rules.unrolled import infinity_gain, stacked

# Tolerance for the float32 rounding of the projection.
ROUNDING = 1e-5


def dense_matrices(layer: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return P = -A, `[updates, units, units]`, and B, `[updates, channels, units]` or None.

    Tied weights count as one update. The values are those of the variables, whatever the
    precision policy.
    """
    R = stacked(layer, layer.R)
    P = np.swapaxes(R, -1, -2) @ R + layer.shift * np.eye(layer.units)
    return P, stacked(layer, layer.B) if layer.non_autonomous else None


def dense_row(layer: Any) -> DenseRow:
    """Return the certificate's row of a dense block."""
    P, _ = dense_matrices(layer)
    R, h = stacked(layer, layer.R), layer.step_size
    finite = np.isfinite(P).all()
    values = np.linalg.eigvalsh(P) if finite else np.full(P.shape[:2], np.nan)
    worst = float(h * values.max())
    delta = 1 - 2 * layer.shift if layer.bound is None else layer.bound
    frobenius = np.linalg.norm(np.swapaxes(R, -1, -2) @ R, axis=(-2, -1)).max()
    # In the P-norm, P = -A: with y = P x and slopes S, x+ = x - h S y has
    # |x+|^2 = |x|^2 - y'(2 h S - h^2 S P S) y, and S P S <= |P| S. So an update is non-expansive
    # where h |P| <= 2, and strictly contracting where h |P| < 2 and all slopes are positive.
    holds = bool(worst < 2)
    reason = None
    if not holds:
        reason = f"h ||A|| is {worst:.3g}, not below 2" if finite else NOT_FINITE
    if not layer.tied:
        what = "each update is non-expansive, in a norm of its own: convergence of the whole block "
        what += "is not implied"
    else:
        what = ONE_POINT if layer.activation == "tanh" else NON_EXPANSIVE
    return DenseRow(
        name=layer.name,
        kind=type(layer).__name__,
        norm="P = -A",
        factor=float(np.abs(1 - h * values).max()),
        guarantee=what,
        reference="NAIS-Net, Theorems 1 and 2",
        holds=holds,
        reason=reason,
        eigenvalue_min=float(-values.max()),
        eigenvalue_max=float(-values.min()),
        spectral_radius=float(np.abs(1 - h * values).max()),
        step_times_norm=worst,
        within_bound=bool(frobenius <= delta * (1 + ROUNDING)),
    )


def dense_block_gain(layer: Any, norm: str) -> float:
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
        return infinity_gain(layer, start, factors, rows)
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


def _tied_dense_gain(layer: Any, start: float, P: np.ndarray, B: Any, stretch: float) -> float:
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
