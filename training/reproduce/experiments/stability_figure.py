"""The figure of stability: distances with their bounds, oscillation, and untied blocks."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..experiment import Results
from ..figure_file import figure_file
from ..stable_blocks import DRIVES, KINDS
from .stability_claims import select

# Okabe and Ito's colours, which colour-blind readers tell apart.
MEASURED, STATED, PROVEN = "black", "#D55E00", "#0072B2"


def draw_stability(path: Path, results: Results) -> None:
    """Draw a panel for each tanh block and drive, the oscillation, and the untied blocks.

    Args:
        path: The image file to write.
        results: The results.
    """
    with figure_file(path, (12, 6.4)) as figure:
        axes = figure.subplots(2, 3, squeeze=False)
        for row, kind in zip(axes, KINDS, strict=True):
            for ax, drive in zip(row, DRIVES, strict=False):
                _draw_distance(ax, results, f"{kind}, tanh, {drive} drive")
        _draw_oscillation(axes[0, 2], results)
        _draw_untied(axes[1, 2], results)


def _draw_distance(ax: Axes, results: Results, name: str) -> None:
    for measures in select(results, name).values():
        curves = {key: np.array(curve, float) for key, curve in measures["curves"].items()}
        ax.plot(curves["distance"], color=MEASURED, lw=1.8, label="measured")
        ax.plot(curves["stated"], color=STATED, ls="--", label="bound as stated, slopes of 1")
        ax.plot(curves["proven"], color=PROVEN, ls="-.", label="bound for the slopes visited")
        ax.set_ylim(bottom=max(1e-12 * curves["distance"][0], curves["distance"].min() / 10))
        ax.legend(frameon=False, fontsize=8)
    ax.set_yscale("log")
    ax.set_title(name, loc="left", fontsize=9)
    ax.set_ylabel("distance to the steady state")
    ax.set_xlabel("updates")


def _draw_oscillation(ax: Axes, results: Results) -> None:
    for (name, measures), colour in zip(
        select(results, "delta ").items(), (PROVEN, STATED), strict=False
    ):
        curve = np.array(measures["curve"], float)
        ax.plot(curve / curve[0], "o-", ms=3, lw=1.2, color=colour, label=name)
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    ax.set_title("distance along the fastest direction", loc="left", fontsize=9)
    ax.set_xlabel("updates")
    if len(ax.lines) > 1:
        ax.legend(frameon=False, fontsize=8)


def _draw_untied(ax: Axes, results: Results) -> None:
    for (name, measures), colour in zip(
        select(results, "untied").items(), (PROVEN, STATED), strict=False
    ):
        curve = np.array(measures["curves"]["motion"], float)
        ax.plot(np.arange(1, len(curve) + 1), curve / curve[0], lw=1.2, color=colour, label=name)
        ax.legend(frameon=False, fontsize=8)
    ax.set_yscale("log")
    ax.set_title("untied blocks: size of each update", loc="left", fontsize=9)
    ax.set_xlabel("updates")
