"""The figure of measures against the strength of the coupling, after Fig. 3 of Lippl et al."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..experiment import Results
from ..figure_file import figure_file
from ..residual_claims import Measured
from ..residual_measures import errors, index_means

# Okabe and Ito's colours and one more, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#555555")
ERROR = "test error"
SIDE_BY_SIDE = 3
INDICES: Mapping[str, Measured] = {
    f"{index} index": partial(index_means, index=index) for index in ("convergence", "divergence")
}
PANELS: Mapping[str, Measured] = {**INDICES, ERROR: errors}
# The rows of a figure: for each, the conditions by strength of each line.
Rows = Mapping[str, Mapping[str, Sequence[str]]]


def draw_strengths(
    path: Path,
    results: Results,
    rows: Rows,
    strengths: Sequence[float | None],
    panels: Mapping[str, Measured] = PANELS,
) -> None:
    """Draw each measure against the strength of the coupling.

    A line shows the mean over the seeds, with the single nets as dots. Independent nets stand
    apart, on the left.

    Args:
        path: The image file to write.
        results: The results.
        rows: The rows by title, each with its lines by label.
        strengths: The strengths of a line's conditions; None for independent nets.
        panels: The measures by title, a column for each.
    """
    count = max(1, len(rows))
    # Rows of one panel stand side by side.
    beside = SIDE_BY_SIDE if len(panels) == 1 else 1
    shape = (-(-count // beside), beside * len(panels))
    size = (2 + 2.7 * shape[1], 3.1 * shape[0])
    with figure_file(path, size) as figure:
        axes = figure.subplots(*shape, squeeze=False).reshape(-1, len(panels))
        for ax in axes[len(rows) :].flat:
            ax.set_axis_off()
        for row, (title, lines) in zip(axes, rows.items(), strict=False):
            for ax, (measure, measured) in zip(row, panels.items(), strict=True):
                colours = _colours(len(lines))
                for colour, (label, names) in zip(colours, lines.items(), strict=True):
                    found = [list(measured(results, name).values()) for name in names]
                    _draw_line(ax, found, colour, label, strengths)
                ax.set_title(f"{title}: {measure}", loc="left", fontsize=9)
                ax.set_xticks(range(len(strengths)), [_label(s) for s in strengths])
                ax.set_xlabel("coupling λ, from a shared start")
                if measure == ERROR:
                    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
            row[-1].legend(frameon=False)


def _colours(count: int) -> Sequence[Any]:
    """Return a colour for each line."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    return [*matplotlib.colormaps["viridis"](np.linspace(0, 0.95, count))]


def _label(strength: float | None) -> str:
    return "inde-\npendent" if strength is None else f"{strength:g}"


def _draw_line(
    ax: Axes,
    found: Sequence[Sequence[float]],
    colour: Any,
    label: str,
    strengths: Sequence[float | None],
) -> None:
    """Draw the values of one line: dots, their means, and a line through the shared starts."""
    means = np.array([np.mean(values) if values else np.nan for values in found])
    places = np.arange(len(found))
    shared = np.array([strength is not None for strength in strengths])
    for place, values in zip(places, found, strict=True):
        ax.plot([place] * len(values), values, "o", ms=3, alpha=0.4, mec="none", color=colour)
    ax.plot(places[shared], means[shared], "-", color=colour, lw=1.4, label=label)
    ax.plot(places, means, "o", color=colour, ms=5)
