"""The rows of a report, one for each block: the measured norms, and the guarantee."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NOT_FINITE = "the weights are not finite"
NON_EXPANSIVE = "non-expansive and monotone: the state converges, to a limit that depends on x(0)"
ONE_POINT = "the state converges to one fixed point for each input, from any x(0)"
# Above the rounding error of a quotient of logarithms, in updates.
QUOTIENT_ERROR = 1e-9


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """The row of one block.

    Attributes:
        name: The layer's name; for a block of a stage with its number from 0, as in `"stage1[0]"`.
        kind: The layer's class.
        norm: The norm of the factor: `"2"`, `"P = -A"` or `"infinity"`; None without a factor.
        factor: Lipschitz bound of one update, as a function of the state. For the NAIS blocks it is
            the bound for activation slopes of 1; smaller slopes bring it nearer to 1.
        guarantee: The statement of the theorem for such a block; None without a theorem.
        reference: The theorem's source.
        holds: Whether there is a guarantee and the weights meet its condition.
        reason: Why there is no guarantee, or why the condition is not met; None where it holds.
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
        """Return the measured norms as a short text; the factor, for a row of no other fields."""
        return "" if self.factor is None else f"factor {self.factor:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as numbers and strings; values that are not finite become None."""
        return {name: plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class ResidualRow(BlockRow):
    """The row of a residual function f, alone or in a stage.

    Attributes:
        norm1: The 2-norm of BN2 . Conv1 . BN1, by the moving statistics.
        norm2: The 2-norm of Conv2.
        bound: L, the product of `norm1` and `norm2`.
        divisor: c, by which the layer divides f; 1 without a cap.
        capped_bound: L / c.
        cap: mu, or None without a cap.
        cap_holds: Whether L / c is at most mu, to one part in a thousand; None without a cap.
        skip_from: The stage's `skip_from`; None for f alone.
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
        # The sign of the comparison with its tolerance of one part in a thousand.
        sign = "<=" if self.cap_holds else ">"
        return (
            f"L {self.bound:.3g}, c {self.divisor:.3g}: {self.capped_bound:.3g} {sign} {self.cap:g}"
        )


@dataclass(frozen=True, kw_only=True)
class TiedRow(ResidualRow):
    """The row of a tied `ResidualStage`; the factor is its convergence rate where it is below one.

    Attributes:
        threshold: The stopping threshold, or None.
        max_unroll: The number of updates, or the largest number.
    """

    threshold: float | None
    max_unroll: int

    def depth_bound(self, first_change: float, threshold: float | None = None) -> int:
        """Return the largest depth of a sample, by the rate alone, in exact arithmetic.

        The 2-norms of the updates of a sample shrink by the factor or faster, so that the k-th is
        at most factor^(k - 1) times the first. A sample stops where the norm is strictly below
        the threshold, after at most floor(log(threshold / first_change) / log(factor)) + 2 updates;
        after one, where the first change is below it; and after at most `max_unroll`.

        Rounding is left out. If it changes the result of an update by a vector of a norm of at most
        e, the updates shrink to 2 e / (1 - factor), and possibly no further: a smaller threshold
        may not be reached. e is of the order of the norm of the state times the resolution of its
        dtype, 1e-7 for float32. The row does not contain the state, so that this is not checked.

        Args:
            first_change: The 2-norm of the sample's first update.
            threshold: The stopping threshold; None for the stage's own.

        Raises:
            ValueError: The guarantee does not hold, there is no positive threshold, or
                `first_change` is no norm.
        """
        threshold = self.threshold if threshold is None else threshold
        if not self.holds or self.factor is None:
            raise ValueError(f"There is no bound of the depth of {self.name!r}: {self.reason}")
        if threshold is None or not threshold > 0:
            raise ValueError(
                "`threshold` must be a positive number, by which samples stop. "
                f"Received: threshold={threshold}"
            )
        if not 0 <= first_change < math.inf:
            raise ValueError(
                "`first_change` must be the norm of an update, finite and at least 0. "
                f"Received: first_change={first_change}"
            )
        if first_change < threshold:
            return 1
        if self.factor == 0:
            return min(2, self.max_unroll)
        shrinking = (math.log(threshold) - math.log(first_change)) / math.log(self.factor)
        # Where a norm equals the threshold, the quotient may be an integer minus rounding.
        return min(math.floor(shrinking + QUOTIENT_ERROR) + 2, self.max_unroll)


@dataclass(frozen=True, kw_only=True)
class DenseRow(BlockRow):
    """The row of a `NAISDense`; for untied weights the largest values over all updates.

    Attributes:
        eigenvalue_min, eigenvalue_max: The extreme eigenvalues of A.
        spectral_radius: The spectral radius of the update's Jacobian I + h A, for slopes of 1.
        step_times_norm: h ||P||, with P = -A; an update is non-expansive in the P-norm up to 2.
        within_bound: Whether R satisfies the bound of Algorithm 1.
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
    """The row of a `NAISConv2D`; for untied weights the largest values over all updates.

    Attributes:
        taps: The largest sum of |taps| into a channel, without the channel's own centre tap.
        delta: The largest |delta|; the centre taps are -1 - delta.
        excess: The excess over Algorithm 2's bound; not positive where the weights satisfy it.
        within_bound: Whether the weights satisfy the bound, up to float32 rounding.
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
    """The row of a block without a theorem: a `ResidualUpdate`, or a class of the user's own.

    Attributes:
        step_size: h, or None for a class of the user's own.
    """

    step_size: float | None = None

    def measured(self) -> str:
        return "" if self.step_size is None else f"h {self.step_size:g}"


def plain(value: Any) -> Any:
    """Return `value`, a NumPy float as a float, and None for a number that is not finite."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
