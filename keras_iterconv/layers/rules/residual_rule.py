"""The rules of residual functions, alone and in stages."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_iterconv.layers.rules.norms import conv_norm
from keras_iterconv.layers.rules.rows import NOT_FINITE, ONE_POINT, BlockRow, ResidualRow, TiedRow

# Relative excess of L / c over mu that is tolerated; the error of the norms is a tenth of it.
CAP_SLACK = 1e-3


def residual_rows(layer: Any, image: tuple | None, skip_from: str | None) -> list[BlockRow]:
    """Return the row of a residual function f, or of each f of a stage, for the moving statistics.

    A tied stage has one f, and one row.

    Args:
        layer: The residual function or the stage.
        image: `(height, width)` of the inputs.
        skip_from: The stage's `skip_from`; None for f alone.

    Raises:
        ValueError: The image's height or width is unknown.
    """
    if image is None or None in image:
        raise ValueError(
            f"To certify {layer.name!r} its inputs must have a known height and width: the norm of "
            f"a convolution depends on them. Received: inputs of {image} pixels"
        )
    tied = skip_from is not None and layer.tied
    alone = skip_from is None or tied
    rows: list[BlockRow] = []
    for t, (first, second, divisor) in enumerate(layer.folded_kernels()):
        # The power iteration starts from new vectors: the layer's stored ones are under test.
        norm1, norm2 = (conv_norm(kernel, image, "2") for kernel in (first, second))
        bound, cap = norm1 * norm2, layer.lipschitz_cap
        capped = bound / divisor
        cap_holds = None if cap is None else bool(capped <= cap * (1 + CAP_SLACK))
        fields: dict[str, Any] = {
            "name": layer.name if alone else f"{layer.name}[{t}]",
            "kind": type(layer).__name__,
            "norm": "2",
            "factor": capped + (skip_from == "previous"),
            **_residual_guarantee(skip_from, tied, capped, cap, cap_holds),
            "norm1": norm1,
            "norm2": norm2,
            "bound": bound,
            "divisor": divisor,
            "capped_bound": capped,
            "cap": cap,
            "cap_holds": cap_holds,
            "skip_from": skip_from,
        }
        if tied:
            depth = {"threshold": layer.threshold, "max_unroll": layer.max_unroll}
            rows.append(TiedRow(**fields, **depth))
        else:
            rows.append(ResidualRow(**fields))
    return rows


def _residual_guarantee(
    skip_from: str | None, tied: bool, capped: float, cap: float | None, cap_holds: bool | None
) -> dict[str, Any]:
    if skip_from == "previous":
        why = "z + f(z) is not a contraction: convergence is not guaranteed"
        if not np.isfinite(capped):
            why = NOT_FINITE
        elif cap_holds is False:
            why += "; f exceeds its Lipschitz cap"
        return {"holds": False, "reason": why}
    what = "contraction: repeating this block converges to one fixed point for each input"
    if tied:
        what = f"contraction: {ONE_POINT}, and each change is at most the factor times the last"
    if skip_from is None:
        what = f"for a skip from the input, x + f(z): {what}; for z + f(z): no guarantee"
    reason = None
    if not np.isfinite(capped):
        reason = NOT_FINITE
    elif cap_holds is False:
        reason = "f exceeds its Lipschitz cap: call `model.converge_caps()`"
    elif not capped < 1:
        reason = "the Lipschitz bound of f is not below 1"
        if cap is not None:
            reason = "the Lipschitz cap is not below 1"
    return {
        "guarantee": what,
        "reference": "Lippl et al., Banach fixed point theorem",
        "holds": reason is None,
        "reason": reason,
    }


def function_bounds(layer: Any, norm: str, rows: Sequence[Any]) -> list[float]:
    """Return the Lipschitz bound of each capped f of a residual layer, in a norm.

    In the 2-norm these are the bounds of its rows, which are not computed again.
    """
    if norm == "2":
        return [row.capped_bound for row in rows]
    return [
        conv_norm(first, None, norm) * conv_norm(second, None, norm) / divisor
        for first, second, divisor in layer.folded_kernels()
    ]
