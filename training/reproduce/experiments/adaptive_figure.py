"""The figure of adaptive and fixed depth: accuracy against updates, and against time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..figure_file import figure_file

if TYPE_CHECKING:
    from .adaptive_or_fixed import Curve, Curves

# Okabe and Ito's colours, which colour-blind readers tell apart.
KINDS = {
    "threshold": ("stopped by a threshold", "#D55E00", "o"),
    "fixed": ("fixed number, same net", "#0072B2", "s"),
    "trained": ("trained with this number", "#009E73", "^"),
}


def draw_adaptive(path: Path, seeds: Sequence["Curves"], batch_sizes: Sequence[int]) -> None:
    """Draw accuracy against updates, and against the time of an image for each batch size.

    Each line is the mean over the seeds at equal settings; the single nets are thin lines.

    Args:
        path: The image file to write.
        seeds: The curves of each seed.
        batch_sizes: The batch sizes that were timed.
    """
    with figure_file(path, (4 * (1 + len(batch_sizes)), 3.6)) as figure:
        panels = figure.subplots(1, 1 + len(batch_sizes), sharey=True)
        for ax, batch_size in zip(panels, (None, *batch_sizes), strict=True):
            for kind, (label, colour, marker) in KINDS.items():
                curves = [getattr(each, kind) for each in seeds]
                _draw_kind(ax, curves, batch_size, label, colour, marker)
            ax.yaxis.set_major_formatter(PercentFormatter(1))
            ax.grid(axis="y", alpha=0.3)
            if batch_size is None:
                ax.set_xlabel("updates of a block, mean")
            else:
                ax.set_xlabel(f"time of an image in a batch of {batch_size}, ms")
                ax.set_xlim(left=0)
        panels[0].set_ylabel("test accuracy")
        panels[0].legend(frameon=False, loc="lower right")


def _draw_kind(
    ax: Axes,
    curves: Sequence["Curve"],
    batch_size: int | None,
    label: str,
    colour: str,
    marker: str,
) -> None:
    positions = [
        curve.updates if batch_size is None else 1000 * curve.seconds[batch_size]
        for curve in curves
    ]
    for x, curve in zip(positions, curves, strict=True):
        ax.plot(x, curve.accuracy, "-", color=colour, lw=0.7, alpha=0.4)
    if curves:
        mean = np.mean([curve.accuracy for curve in curves], axis=0)
        ax.plot(np.mean(positions, axis=0), mean, marker, ls="-", ms=4, color=colour, label=label)
