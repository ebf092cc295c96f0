"""The report row of each block: norms of its weights in float64, and the theorem they satisfy."""

import numpy as np

from keras_iterconv.certificates.norms import conv_norm
from keras_iterconv.certificates.rows import BlockRow, ConvRow, DenseRow, FreeRow, ResidualRow
from keras_iterconv.layers import (
    IteratedBlock,
    NAISConv2D,
    NAISDense,
    ResidualBlock,
    ResidualFunction,
    ResidualStage,
    ResidualUpdate,
)
from keras_iterconv.layers.residual_function import folded_kernel
from keras_iterconv.projections import write_center

BLOCKS = (IteratedBlock, ResidualFunction, ResidualUpdate)
# Exactly these classes have rules: a subclass may compute anything.
KINDS = (NAISDense, NAISConv2D, ResidualBlock, ResidualStage, ResidualUpdate)
# Relative excess of L / c over mu that is tolerated; the error of the norms is a tenth of it.
CAP_SLACK = 1e-3
# Tolerance for the float32 rounding of the projections.
ROUNDING = 1e-5

NOT_FINITE = "the weights are not finite"
NON_EXPANSIVE = "non-expansive and monotone: the state converges, to a limit that depends on x(0)"
ONE_POINT = "the state converges to one fixed point for each input, from any x(0)"


def block_rows(layer, image: tuple | None) -> list[BlockRow]:
    """Return the row of a block, or one row for each block of a stage.

    Args:
        layer: One of `BLOCKS`.
        image: `(height, width)` of the block's input; None for an input without them.

    Raises:
        ValueError: The height or width of a residual block's input is unknown.
    """
    if type(layer) not in KINDS:
        return [
            FreeRow(
                name=layer.name,
                kind=type(layer).__name__,
                holds=False,
                reason="a block class of your own: no theorem covers it",
            )
        ]
    if isinstance(layer, ResidualFunction):
        return residual_rows(layer, image)
    if isinstance(layer, NAISDense):
        return [_dense_row(layer)]
    if isinstance(layer, NAISConv2D):
        return [_conv_row(layer)]
    return [
        FreeRow(
            name=layer.name,
            kind=type(layer).__name__,
            holds=False,
            reason="the transfer is not constrained: no theorem covers it",
            step_size=layer.step_size,
        )
    ]


def residual_rows(layer: ResidualFunction, image: tuple) -> list[ResidualRow]:
    """Return the row of a residual function f, or of each f of a stage, for the moving statistics.

    Raises:
        ValueError: The image's height or width is unknown.
    """
    if None in image:
        raise ValueError(
            f"To certify {layer.name!r} its inputs must have a known height and width: the norm of "
            f"a convolution depends on them. Received: inputs of {image} pixels"
        )
    stage = layer if isinstance(layer, ResidualStage) else None
    rows = []
    for t, block in enumerate(layer.block_values()):
        # The power iteration starts from new vectors: the layer's stored ones are under test.
        norm1, norm2 = (
            conv_norm(kernel, image, "2") for kernel in (folded_kernel(block), block.kernel2)
        )
        bound, cap = norm1 * norm2, layer.lipschitz_cap
        divisor = 1.0 if cap is None else float(block.divisor)
        capped = bound / divisor
        cap_holds = None if cap is None else bool(capped <= cap * (1 + CAP_SLACK))
        rows.append(
            ResidualRow(
                name=layer.name if stage is None else f"{layer.name}[{t}]",
                kind=type(layer).__name__,
                norm="2",
                factor=capped + (stage is not None and stage.skip_from == "previous"),
                **_residual_guarantee(stage, capped, cap, cap_holds),
                norm1=norm1,
                norm2=norm2,
                bound=bound,
                divisor=divisor,
                capped_bound=capped,
                cap=cap,
                cap_holds=cap_holds,
                skip_from=None if stage is None else stage.skip_from,
            )
        )
    return rows


def _residual_guarantee(stage, capped, cap, cap_holds) -> dict:
    if stage is not None and stage.skip_from == "previous":
        why = "z + f(z) is not a contraction: convergence is not guaranteed"
        if not np.isfinite(capped):
            why = NOT_FINITE
        elif cap_holds is False:
            why += "; f exceeds its Lipschitz cap"
        return {"holds": False, "reason": why}
    what = "contraction: repeating this block converges to one fixed point for each input"
    if stage is None:
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


def dense_matrices(layer: NAISDense) -> tuple[np.ndarray, np.ndarray | None]:
    """Return P = -A, `[updates, units, units]`, and B, `[updates, channels, units]` or None.

    Tied weights count as one update. The values are those of the variables, whatever the
    precision policy.
    """
    R = _stack(layer, layer.R)
    P = np.swapaxes(R, -1, -2) @ R + layer.shift * np.eye(layer.units)
    return P, _stack(layer, layer.B) if layer.non_autonomous else None


def conv_kernels(layer: NAISConv2D) -> tuple[np.ndarray, np.ndarray]:
    """Return C as used, `[updates, k, k, filters, filters]`, and delta, `[updates, filters]`.

    The centre taps are computed from delta, not read from the stored kernel.
    """
    C = _stack(layer, layer.C)
    delta = np.zeros((len(C), layer.filters)) if layer.delta is None else _stack(layer, layer.delta)
    return write_center(C, delta).numpy(), delta


def conv_row_factors(layer: NAISConv2D) -> np.ndarray:
    """Return the row sums of |I + h C| for each update and channel, `[updates, filters]`.

    At the image's border a row has fewer taps, so the sum is an upper bound there.
    """
    C, delta = conv_kernels(layer)
    h = layer.step_size
    others = np.abs(C).sum(axis=(1, 2, 3)) - np.abs(1 + delta)
    return np.abs(1 - h * (1 + delta)) + h * others


def _stack(layer, weight) -> np.ndarray:
    value = np.asarray(weight, np.float64)
    return value[None] if layer.tied else value


def _dense_row(layer: NAISDense) -> DenseRow:
    P, _ = dense_matrices(layer)
    R, h = _stack(layer, layer.R), layer.step_size
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


def _conv_row(layer: NAISConv2D) -> ConvRow:
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
