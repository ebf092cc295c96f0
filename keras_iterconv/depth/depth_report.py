"""Accuracy against depth, setting by setting, and how it is shown."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_iterconv._support.text_table import as_text

MIXED = "mixed"
_COLUMNS = ("max_unroll", "threshold", "accuracy", "updates", "share", "at limit", "not finite")


@dataclass(frozen=True)
class DepthPoint:
    """What a net does at one setting of its depth.

    Attributes:
        max_unroll: The largest number of updates of each block, or `"mixed"` where blocks differ.
        threshold: The norm at which a sample stops, None for a fixed depth, or `"mixed"`.
        accuracy: The share of right answers.
        standard_error: Of the accuracy, sqrt(p (1 - p) / N).
        updates: The mean over images of the updates made in all blocks together.
        share_of_fixed_depth: `updates` as a share of the report's `fixed_depth`.
        share_at_limit: The share of image-blocks that did not converge within `max_unroll`; 1 for
            blocks of fixed depth.
        share_not_finite: The share of image-blocks whose state was not finite.
    """

    max_unroll: int | str
    threshold: float | str | None
    accuracy: float
    standard_error: float
    updates: float
    share_of_fixed_depth: float
    share_at_limit: float
    share_not_finite: float


@dataclass(frozen=True)
class DepthReport:
    """The accuracy of a net against its cost.

    Attributes:
        name: The net's name.
        samples: N, the number of images.
        fixed_depth: The updates of an image that never stops early, at the net's own settings.
        own: The net at its own settings.
        by_max_unroll: At its own threshold, from the smallest `max_unroll` on.
        by_threshold: At its own `max_unroll`, from the largest threshold on.
    """

    name: str
    samples: int
    fixed_depth: int
    own: DepthPoint
    by_max_unroll: tuple[DepthPoint, ...]
    by_threshold: tuple[DepthPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, lists and strings."""
        content = asdict(self)
        for name in ("by_max_unroll", "by_threshold"):
            content[name] = list(content[name])
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "DepthReport":
        """Build a report from what `to_dict` returned."""
        curves = {
            name: tuple(DepthPoint(**point) for point in content[name])
            for name in ("by_max_unroll", "by_threshold")
        }
        return cls(**{**content, "own": DepthPoint(**content["own"]), **curves})

    def table(self) -> Table:
        """Return the points as a Rich table."""
        table = Table(
            title=f"{escape(self.name)} on {self.samples:,} images, at most "
            f"{self.fixed_depth:,} updates each; accuracy ± its standard error",
            title_justify="left",
        )
        table.add_column("")
        for name in _COLUMNS:
            table.add_column(name, justify="right")
        groups = (
            ("own settings", [self.own]),
            ("by max_unroll", self.by_max_unroll),
            ("by threshold", self.by_threshold),
        )
        for label, points in groups:
            for point in points:
                table.add_row(label if point is points[0] else "", *_cells(point))
            table.add_section()
        return table

    def __str__(self) -> str:
        return as_text(self.table())

    def plot(self):
        """Draw accuracy against updates.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_iterconv.depth.depth_plot import plot_accuracy_by_depth

        return plot_accuracy_by_depth(self)


def format_threshold(threshold: float | str | None) -> str:
    """Write a threshold, `fixed` for none."""
    if threshold is None or isinstance(threshold, str):
        return threshold or "fixed"
    if threshold >= 0.01:
        return f"{threshold:g}"
    return np.format_float_scientific(threshold, precision=3, trim="-", exp_digits=1)


def _cells(point: DepthPoint) -> tuple[str, ...]:
    return (
        str(point.max_unroll),
        format_threshold(point.threshold),
        f"{point.accuracy:.2%} ± {100 * point.standard_error:.2f}",
        f"{point.updates:.1f}",
        f"{point.share_of_fixed_depth:.1%}",
        f"{point.share_at_limit:.1%}",
        f"{point.share_not_finite:.1%}",
    )
