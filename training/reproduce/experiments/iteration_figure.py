"""The figure of a net with and without iteration: accuracy against updates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..figure_file import figure_file

# Okabe and Ito's colours, which colour-blind readers tell apart.
FIXED, ADAPTIVE, PLAIN = "#0072B2", "#D55E00", "0.35"


def draw_iteration(
    path: Path, settings: Mapping[int, Sequence[Mapping[str, Any]]], plain: Mapping[int, float]
) -> None:
    """Draw the accuracy of each seed at fixed and at adaptive depth, beside the net without.

    Args:
        path: The image file to write.
        settings: The depths of the iterated net of each seed; the adaptive one is the last.
        plain: The accuracy of the net without iteration, by seed.
    """
    with figure_file(path, (6, 3.6)) as figure:
        ax = figure.subplots()
        for number, (*fixed, adaptive) in enumerate(settings.values()):
            labels = ("fixed number of updates", "stopped by a threshold")
            points = [(each["updates"], each["accuracy"]) for each in fixed]
            ax.plot(*zip(*points, strict=True), "s-", ms=5, color=FIXED, alpha=0.7,
                    label=labels[0] if number == 0 else None)  # fmt: skip
            ax.plot(adaptive["updates"], adaptive["accuracy"], "o", ms=7, color=ADAPTIVE,
                    label=labels[1] if number == 0 else None)  # fmt: skip
        for number, accuracy in enumerate(plain.values()):
            label = "without iteration, equal arithmetic" if number == 0 else None
            ax.axhline(accuracy, color=PLAIN, lw=1, ls="--", label=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.set(xlabel="updates of a block, mean", ylabel="test accuracy")
        ax.grid(axis="y", alpha=0.3)
        ax.legend(frameon=False, loc="lower right")
