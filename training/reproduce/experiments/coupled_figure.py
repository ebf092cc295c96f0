"""The figure of the coupled residual nets, after Fig. 3 of Lippl et al."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..experiment import Results
from ..residual_measures import errors, index_means

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499")
PANELS: tuple[tuple[str, Callable[[Results, str], dict[int, float]]], ...] = (
    ("convergence index", lambda results, name: index_means(results, name, "convergence")),
    ("divergence index", lambda results, name: index_means(results, name, "divergence")),
    ("test error", errors),
)


def draw_coupled(
    path: Path,
    results: Results,
    grid: Mapping[str, Sequence[int]],
    name_of: Callable[[str, int, float | None], str],
    strengths: Sequence[float | None],
) -> None:
    """Draw each measure against the strength of the coupling, a row for each data set.

    Each line is a width: the mean over the seeds, with the single nets as dots. The independent
    nets stand apart, on the left.

    Args:
        path: The image file to write.
        results: The results.
        grid: The widths of each data set.
        name_of: A function from data set, width and strength to the name of a condition.
        strengths: The strengths; None for independent nets.
    """
    rows = max(1, len(grid))
    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(10, 3.1 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, len(PANELS), squeeze=False)
        for row, (dataset, widths) in zip(axes, grid.items(), strict=False):
            for ax, (title, measured) in zip(row, PANELS, strict=True):
                for colour, width in zip(COLOURS, widths, strict=False):
                    found = [
                        list(measured(results, name_of(dataset, width, strength)).values())
                        for strength in strengths
                    ]
                    _draw_line(ax, found, colour, f"{width} channels")
                ax.set_title(f"{dataset}: {title}", loc="left", fontsize=9)
                ax.set_xticks(range(len(strengths)), [_label(s) for s in strengths])
                ax.set_xlabel("coupling λ, from a shared start")
                if title == "test error":
                    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
            row[-1].legend(frameon=False)
        figure.savefig(path, dpi=120)


def _label(strength: float | None) -> str:
    return "inde-\npendent" if strength is None else f"{strength:g}"


def _draw_line(ax: Axes, found: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """Draw the values of one width: dots, their means, and a line through all but the first."""
    means = np.array([np.mean(values) if values else np.nan for values in found])
    places = np.arange(len(found))
    for place, values in zip(places, found, strict=True):
        ax.plot([place] * len(values), values, "o", ms=3, alpha=0.4, mec="none", color=colour)
    ax.plot(places[1:], means[1:], "-", color=colour, lw=1.4, label=label)
    ax.plot(places, means, "o", color=colour, ms=5)
