"""Accuracy and number of updates at each depth setting, and their table."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_iterconv._support.text_table import as_text
from keras_iterconv.depth.budget import smallest_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIXED = "mixed"
_COLUMNS = ("max_unroll", "threshold", "accuracy", "updates", "share", "at limit", "not finite")


@dataclass(frozen=True)
class DepthPoint:
    """Accuracy and number of updates of a net at one depth setting.

    Attributes:
        max_unroll: Largest number of updates of each block, or `"mixed"` where blocks differ.
        threshold: Stopping threshold, None for a fixed depth, or `"mixed"` where blocks differ.
        accuracy: The share of correct predictions.
        standard_error: The standard error of the accuracy p, sqrt(p (1 - p) / N).
        updates: The number of updates in all blocks together, mean over images.
        share_of_fixed_depth: `updates` as a share of the report's `fixed_depth`.
        share_at_limit: The share of (image, block) pairs that did not converge within
            `max_unroll`; 1 for blocks of fixed depth, unless a state is not finite.
        share_not_finite: The share of (image, block) pairs whose state was not finite.
        updates_standard_error: The standard error of `updates`; None in reports of older versions.
        seconds: The time of an image in seconds; None where it was not measured.

    Example:
        >>> point = ki.DepthPoint(
        ...     max_unroll=10, threshold=0.1, accuracy=0.9, standard_error=0.03, updates=4.0,
        ...     share_of_fixed_depth=0.4, share_at_limit=0.0, share_not_finite=0.0,
        ... )
        >>> round(point.updates / point.share_of_fixed_depth)  # the updates at fixed depth
        10

    See also:
        `DepthReport`, which holds them.
    """

    max_unroll: int | str
    threshold: float | str | None
    accuracy: float
    standard_error: float
    updates: float
    share_of_fixed_depth: float
    share_at_limit: float
    share_not_finite: float
    updates_standard_error: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class DepthReport:
    """The accuracy and number of updates of a net at several depth settings.

    Attributes:
        name: The net's name.
        samples: Number of images N.
        fixed_depth: The number of updates of an image that stops nowhere early, at the net's own
            settings.
        own: The point at the net's own settings.
        by_max_unroll: Points at its own threshold, from the smallest `max_unroll` on.
        by_threshold: Points at its own `max_unroll`, from the threshold at which images stop
            soonest on.
        before: The point at the settings before a calibration, which `own` are the settings after;
            None without a calibration.
        budget: The budget of the calibration by the name of its argument, or None.
        thresholds: The threshold of each adjustable block after the calibration.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=20, step_size=0.5)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> data = np.random.default_rng(0).normal(size=(64, 4)), np.zeros(64, int)
        >>> report = ki.accuracy_by_depth(model, data, max_unrolls=[1, 20], thresholds=[])
        >>> report.samples, report.fixed_depth
        (64, 20)
        >>> [point.max_unroll for point in report.by_max_unroll]
        [1, 20]
        >>> ki.DepthReport.from_dict(report.to_dict()) == report
        True

    See also:
        `accuracy_by_depth` and `calibrate_depth`, which return it; `DepthPoint`;
        `plot_accuracy_by_depth`.
    """

    name: str
    samples: int
    fixed_depth: int
    own: DepthPoint
    by_max_unroll: tuple[DepthPoint, ...]
    by_threshold: tuple[DepthPoint, ...]
    before: DepthPoint | None = None
    budget: dict[str, float] | None = None
    thresholds: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as numbers, lists and strings.

        See also:
            `DepthReport.from_dict`.
        """
        content = asdict(self)
        for name in ("by_max_unroll", "by_threshold", "thresholds"):
            content[name] = list(content[name])
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "DepthReport":
        """Return the report from the result of `to_dict`, of older versions too.

        See also:
            `DepthReport.to_dict`.
        """
        points = {
            name: DepthPoint(**content[name])
            for name in ("own", "before")
            if content.get(name) is not None
        }
        curves = {
            name: tuple(DepthPoint(**point) for point in content[name])
            for name in ("by_max_unroll", "by_threshold")
        }
        thresholds = tuple(content.get("thresholds", ()))
        return cls(**{**content, **points, **curves, "thresholds": thresholds})

    def table(self) -> Table:
        """Return the points as a Rich table.

        See also:
            `DepthReport.plot`; `plot_accuracy_by_depth`.
        """
        timed = self.own.seconds is not None
        table = Table(
            title=f"{escape(self.name)} on {self.samples:,} images, at most "
            f"{self.fixed_depth:,} updates each; accuracy ± its standard error"
            f"{'; time of an image in ms' if timed else ''}",
            title_justify="left",
            caption=None if self.budget is None else f"Calibrated to {self.describe_calibration()}",
            caption_justify="left",
        )
        table.add_column("", no_wrap=True)
        for name in (*_COLUMNS, *(["ms"] if timed else [])):
            table.add_column(name, justify="right", no_wrap=True)
        groups = (
            *([] if self.before is None else [("before", [self.before])]),
            ("own settings" if self.before is None else "after", [self.own]),
            ("by max_unroll", self.by_max_unroll),
            ("by threshold", self.by_threshold),
        )
        for label, points in groups:
            for point in points:
                seconds = "" if point.seconds is None else f"{1e3 * point.seconds:.3g}"
                cells = (*_cells(point), *([seconds] if timed else []))
                table.add_row(label if point is points[0] else "", *cells)
            table.add_section()
        return table

    def describe_calibration(self, images: str = "images") -> str:
        """Return the budget of a calibration and what it led to, as a text of one line.

        Args:
            images: What the text calls the data, such as `"validation images"`.

        Raises:
            ValueError: The report is not one of `calibrate_depth`.

        See also:
            `calibrate_depth`; `DepthReport.table`.
        """
        if self.budget is None or self.before is None:
            raise ValueError("The report must be one of `calibrate_depth`, with a budget.")
        ((name, limit),) = self.budget.items()
        texts = [format_threshold(threshold) for threshold in self.thresholds]
        before, after = self.before, self.own
        times = " and ".join(f"{1e3 * (point.seconds or 0):.3g}" for point in (before, after))
        return (
            f"{name} {limit:g} on {self.samples:,} {images}: threshold "
            f"{', '.join(texts if len(set(texts)) > 1 else texts[:1])}; accuracy "
            f"{before.accuracy:.2%} before and {after.accuracy:.2%} after, updates "
            f"{before.updates:.1f} and {after.updates:.1f}, ms an image {times}"
            f"{self._why_kept(before, limit) if name == 'accuracy_loss' else ''}"
        )

    def _why_kept(self, before: DepthPoint, limit: float) -> str:
        """Return why a budget of accuracy has left the thresholds as they were; else nothing."""
        same = (before.threshold, before.updates) == (self.own.threshold, self.own.updates)
        if before.threshold is None or not same:
            return ""
        smallest = smallest_loss(self.samples)
        reason = f": so few images show no loss below {smallest:.2g}" if limit < smallest else ""
        return f"; no threshold of fewer updates met the budget{reason}"

    def __str__(self) -> str:
        return as_text(self.table())

    def plot(self) -> "Figure":
        """Return a figure of accuracy against updates.

        Returns:
            A `matplotlib.figure.Figure`.

        See also:
            `plot_accuracy_by_depth`, which can also write a file; `DepthReport.table`.
        """
        from keras_iterconv.depth.depth_plot import plot_accuracy_by_depth

        return plot_accuracy_by_depth(self)


def format_threshold(threshold: float | str | None) -> str:
    """Return a threshold as text, `fixed` for None."""
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
