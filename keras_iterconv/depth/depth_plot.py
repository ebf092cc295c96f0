"""The figure of accuracy against updates."""

import os
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from keras_iterconv.depth.depth_report import DepthPoint, DepthReport, format_threshold

# From Paul Tol's "muted" colours, which colour-blind readers can distinguish.
_UNROLL_COLOR, _THRESHOLD_COLOR = "#332288", "#CC6677"
# Neighbouring points share a label where the ratio of their updates is below this.
_NEAR = 1.06


def plot_accuracy_by_depth(report: DepthReport, path: str | os.PathLike | None = None) -> Figure:
    """Return a figure of accuracy, with its standard error, against the mean updates of an image.

    One curve varies `max_unroll`, the other one the threshold. Each point is labelled with its
    setting; a ring marks the settings of the model. The axis of updates is logarithmic.

    Args:
        report: Result of `accuracy_by_depth`.
        path: File to save the figure to, in any format of Matplotlib. None for no file.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), ki.NAISDense(8), keras.layers.Dense(2)])
        >>> data = np.random.default_rng(0).normal(size=(64, 4)), np.zeros(64, int)
        >>> report = ki.accuracy_by_depth(model, data, max_unrolls=[1, 5, 30], thresholds=[])
        >>> figure = ki.plot_accuracy_by_depth(report, "depth.svg")
        >>> figure.axes[0].get_xscale()
        'log'

    See also:
        `accuracy_by_depth`; `DepthReport.table`; `plot_indices`.
    """
    own = report.own
    stop = (
        "no threshold" if own.threshold is None else f"threshold {format_threshold(own.threshold)}"
    )
    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        if report.by_max_unroll:
            names = [str(point.max_unroll) for point in report.by_max_unroll]
            label = f"by max_unroll ({stop})"
            _curve(axes, report.by_max_unroll, names, label, _UNROLL_COLOR, above=False)
        if report.by_threshold:
            names = [format_threshold(point.threshold) for point in report.by_threshold]
            label = f"by threshold (max_unroll {own.max_unroll})"
            _curve(axes, report.by_threshold, names, label, _THRESHOLD_COLOR, above=True)
        ring: dict[str, Any] = {
            "ls": "none",
            "marker": "o",
            "ms": 10,
            "mfc": "none",
            "mec": "0.2",
            "zorder": 3,
        }
        axes.plot(own.updates, own.accuracy, label="own settings", **ring)
        axes.set_title(f"{report.name}, {report.samples:,} images", fontsize=9, loc="left")
        axes.set_xlabel("updates an image, mean")
        axes.set_ylabel("accuracy ± standard error")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        # Space for the labels beside the outermost points.
        axes.margins(x=0.1, y=0.12)
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, columnspacing=1.2)
        if path is not None:
            figure.savefig(path, dpi=200)
    return figure


def _curve(
    axes: Any,
    points: Sequence[DepthPoint],
    names: Sequence[str],
    label: str,
    color: str,
    above: bool,
) -> None:
    axes.errorbar(
        [point.updates for point in points],
        [point.accuracy for point in points],
        [point.standard_error for point in points],
        label=label,
        color=color,
        marker="o",
        ms=4,
        lw=1.2,
        elinewidth=0.8,
        capsize=2,
    )
    for first, last in _neighbours(points):
        axes.annotate(
            names[first] if first == last else f"{names[first]} to {names[last]}",
            (points[last].updates, points[last].accuracy),
            (3, 4 if above else -4),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=color,
            fontsize=8,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _neighbours(points: Sequence[DepthPoint]) -> list[tuple[int, int]]:
    """Return the first and last index of each group of points too close for separate labels."""
    groups: list[list[int]] = []
    for index, point in enumerate(points):
        if groups and point.updates < _NEAR * points[groups[-1][0]].updates:
            groups[-1][1] = index
        else:
            groups.append([index, index])
    return [(first, last) for first, last in groups]
