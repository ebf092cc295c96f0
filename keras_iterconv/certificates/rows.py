"""A row for each block: what was measured, and which guarantee follows."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """One block of a net.

    Attributes:
        name: The layer's name; of a stage's block with its number from 0, `"stage1[0]"`.
        kind: The layer's class.
        norm: In which norm the factor is meant: `"2"`, `"P = -A"` or `"infinity"`; None where
            nothing is claimed.
        factor: The bound of how much one update, repeated, changes a distance. Of the NAIS blocks
            it is for slopes of one: smaller slopes bring it nearer to one.
        guarantee: What the theorem says of such a block; None where there is no theorem.
        reference: The theorem.
        holds: Whether there is a guarantee and the weights meet its condition.
        reason: Why it does not hold.
    """

    name: str
    kind: str
    norm: str | None = None
    factor: float | None = None
    guarantee: str | None = None
    reference: str | None = None
    holds: bool
    reason: str | None = None

    def measured(self) -> str:
        """Return what was measured, in a few words."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as numbers and strings; what is not finite is None."""
        return {name: plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class ResidualRow(BlockRow):
    """A residual function f, alone or in a stage.

    Attributes:
        norm1: The 2-norm of BN2 . Conv1 . BN1, folded with the moving statistics.
        norm2: The 2-norm of Conv2.
        bound: L, their product.
        divisor: c, as the layer applies it; 1 without a cap.
        capped_bound: L / c.
        cap: mu, or None.
        cap_holds: Whether L / c is at most mu, to one part in a thousand; None without a cap.
        skip_from: Of a stage; None for f alone.
    """

    norm1: float
    norm2: float
    bound: float
    divisor: float
    capped_bound: float
    cap: float | None
    cap_holds: bool | None
    skip_from: str | None

    def measured(self) -> str:
        if self.cap is None:
            return f"L {self.bound:.3g}, no cap"
        # The sign of the comparison as it was made, to one part in a thousand.
        sign = "<=" if self.cap_holds else ">"
        return (
            f"L {self.bound:.3g}, c {self.divisor:.3g}: {self.capped_bound:.3g} {sign} {self.cap:g}"
        )


@dataclass(frozen=True, kw_only=True)
class DenseRow(BlockRow):
    """A `NAISDense`; of untied updates the worst.

    Attributes:
        eigenvalue_min, eigenvalue_max: The extreme eigenvalues of A.
        spectral_radius: Of the update's Jacobian I + h A for slopes of one.
        step_times_norm: h ||P||, P = -A: up to 2 no update expands the P-norm.
        within_bound: Whether R is where Algorithm 1 keeps it.
    """

    eigenvalue_min: float
    eigenvalue_max: float
    spectral_radius: float
    step_times_norm: float
    within_bound: bool

    def measured(self) -> str:
        return (
            f"A in [{self.eigenvalue_min:.3g}, {self.eigenvalue_max:.3g}], "
            f"h|P| {self.step_times_norm:.3g} {'<' if self.step_times_norm < 2 else '>='} 2"
        )


@dataclass(frozen=True, kw_only=True)
class ConvRow(BlockRow):
    """A `NAISConv2D`; of untied updates the worst.

    Attributes:
        taps: The largest sum of |taps| into a channel, its own centre left out.
        delta: The largest |delta|, the centre taps being -1 - delta.
        excess: By how much Algorithm 2's condition is passed; not positive where it holds.
        within_bound: Whether it holds, float32 rounding aside.
    """

    taps: float
    delta: float
    excess: float
    within_bound: bool

    def measured(self) -> str:
        bound = "kept" if self.within_bound else f"past by {self.excess:.2g}"
        return f"{bound}: taps {self.taps:.3g}, |delta| {self.delta:.2g}"


@dataclass(frozen=True, kw_only=True)
class FreeRow(BlockRow):
    """A block of which nothing is known: a `ResidualUpdate`, whose transfer is any layer's.

    Attributes:
        step_size: h, where there is one.
    """

    step_size: float | None = None

    def measured(self) -> str:
        return "" if self.step_size is None else f"h {self.step_size:g}"


def plain(value):
    """Return a number, or None for one that is not finite; all else as it is."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
