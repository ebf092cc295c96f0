"""Lipschitz bounds of repeated updates in the infinity norm.

The activations of the NAIS blocks have slopes from 0 to 1. So the states of two inputs differ by
dx+ = dx + h S (A dx + B du) after an update, with a diagonal S, 0 <= S <= 1, that depends on both
states. The bounds hold for every such S.
"""

from typing import Any

import numpy as np


def stacked(layer: Any, weight: Any) -> np.ndarray:
    """Return a weight of a block in float64, `[updates, ...]`; tied weights as one update."""
    value = np.asarray(weight, np.float64)
    return value[None] if layer.tied else value


def infinity_gain(layer: Any, gain: float, factors: np.ndarray, drive: np.ndarray) -> float:
    """Return a bound of ||dx(K)|| / ||du|| after all K updates, infinity norm.

    Row c of the new difference is at most (|1 - h s a| + h s o) ||dx|| + h s b ||du||, with a the
    diagonal entry of P, o the sum of |other entries| of that row, and b the sum of |entries| of
    the row of B. It is convex in the slope s, so it is largest at s = 0, where it is ||dx||, or at
    s = 1, where it is f_c ||dx|| + h b_c ||du||. Where all f_c < 1 it is bounded for any number of
    updates, by the largest h b_c / (1 - f_c), or by the initial gain where that is larger.

    Args:
        layer: The block, with `max_unroll`, `tied` and `step_size`.
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
