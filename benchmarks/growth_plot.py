"""The figure of the time of a training step against four sizes."""

import os
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

# Paul Tol's "muted" colours, which colour-blind readers can distinguish, and different markers for
# prints without colour.
_STYLES = {
    "ours, unroll": ("#332288", "o"),
    "ours, recompute": ("#117733", "s"),
    "ours, frozen": ("#CC6677", "^"),
    "PyTorch, eager": ("0.35", "D"),
}
# By panel: the label of the size, the exponent of the arithmetic in the size, and its label.
_AXES = {
    "updates": ("updates per block", 1, "∝ updates"),
    "width": ("channels of the state", 2, "∝ channels²"),
    "batch": ("images per batch", 1, "∝ images"),
    "image": ("height and width, pixels", 2, "∝ height x width"),
}
# Least distance between the labels of curves, as a share of a panel's height.
_LABEL_GAP = 0.052


def plot_growth(content: dict, path: str | os.PathLike | None = None) -> Figure:
    """Draw the median time of a step, with minimum and maximum, against each size.

    Args:
        content: The content of the JSON file of `benchmarks.growth`.
        path: The file for the figure, in any format of Matplotlib; None for no file.

    Returns:
        The figure, with one panel for each size; all panels share the axis of seconds.
    """
    panels, base = content["seconds"], content["base"]
    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(4.2 * columns, 0.5 + 3.0 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (panel, curves) in zip(grid.flat, panels.items(), strict=False):
            _draw_panel(axes, panel, curves, base)
        for axes in grid[:, 0]:
            axes.set_ylabel("seconds per training step")
        figure.canvas.draw()  # Labels need the final limits.
        for axes, curves in zip(grid.flat, panels.values(), strict=False):
            _label_ends(axes, curves)
        figure.suptitle(
            f"{content['title']}; {content['processor']}", fontsize=9, x=0.01, ha="left"
        )
        if path is not None:
            figure.savefig(path, dpi=200)
    return figure


def _draw_panel(axes: Axes, panel: str, curves: dict, base: dict) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = np.empty(0)
    for name, points in curves.items():
        sizes = np.array([float(size) for size in points])
        runs = [np.array(values) for values in points.values()]
        medians = np.array([np.median(values) for values in runs])
        spread = [
            medians - [values.min() for values in runs],
            [values.max() for values in runs] - medians,
        ]
        color, marker = _STYLES[name]
        axes.errorbar(
            sizes, medians, spread, color=color, marker=marker, ms=4, lw=1.3, elinewidth=0.8
        )
    others = [_short(size, value) for size, value in base.items() if size != panel]
    axes.set_title(", ".join(others), fontsize=8, loc="left", color="0.3")
    label, power, law = _AXES[panel]
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelleft=True)
    axes.grid(alpha=0.3)
    _draw_law(axes, curves, sizes, power, law)


def _draw_law(axes: Axes, curves: dict, sizes: np.ndarray, power: int, law: str) -> None:
    """Draw the growth of the arithmetic, as a line below the lowest last point of the curves."""
    lowest = min(float(np.median(list(points.values())[-1])) for points in curves.values())
    values = 0.5 * lowest * (sizes / sizes[-1]) ** power
    axes.plot(sizes, values, color="0.6", lw=1, ls=(0, (4, 3)), zorder=1)
    axes.annotate(
        law,
        # A point near the middle of the line.
        (sizes[0] ** 0.4 * sizes[-1] ** 0.6, values[0] ** 0.4 * values[-1] ** 0.6),
        (4, -3),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color="0.45",
    )


def _short(size: str, value: int) -> str:
    return {
        "updates": f"{value} updates",
        "width": f"{value} channels",
        "batch": f"batch {value}",
        "image": f"{value}x{value} pixels",
    }[size]


def _label_ends(axes: Axes, curves: dict) -> None:
    """Write each curve's name beside its last point, moved if names would overlap."""
    ends = {}
    for name, points in curves.items():
        size, values = list(points.items())[-1]
        ends[name] = (float(size), float(np.median(values)))
    to_axes = axes.transData + axes.transAxes.inverted()
    points = {name: to_axes.transform(end) for name, end in ends.items()}
    order = sorted(points, key=lambda name: points[name][1])
    heights = [points[name][1] for name in order]
    for k in range(1, len(heights)):
        heights[k] = max(heights[k], heights[k - 1] + _LABEL_GAP)
    # The loop only moves labels up: centre them on their points.
    shift = np.mean([points[name][1] for name in order]) - np.mean(heights)
    for name, height in zip(order, heights, strict=True):
        axes.annotate(
            name,
            ends[name],
            (points[name][0] + 0.03, height + shift),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=_STYLES[name][0],
            annotation_clip=False,
        )
