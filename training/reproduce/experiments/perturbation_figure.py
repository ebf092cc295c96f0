"""The figure of perturbed residual nets: error by block and stage, after Fig. 2a of Lippl et al."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..experiment import Results
from ..figure_file import figure_file

# Okabe and Ito's colours, one for each stage.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
CURVES = {
    "early_readout": ("stage read out after block", "convergence"),
    "left_out": ("block left out", "recurrence"),
    "repeated": ("further runs of the last block", "divergence"),
}


def draw_perturbations(path: Path, results: Results) -> None:
    """Draw the error of each perturbation against the block, a line for each stage.

    Each row is a condition: thin lines are single nets, thick ones their mean. The title of a panel
    gives the index of each stage, which summarises its curve.

    Args:
        path: The image file to write.
        results: The results of an experiment with index reports.
    """
    names = results.conditions or ["no results"]
    with figure_file(path, (10, 3 * len(names))) as figure:
        axes = figure.subplots(len(names), len(CURVES), squeeze=False, sharey="row")
        for row, name in zip(axes, names, strict=True):
            reports = [row.measures["indices"] for row in results.rows if row.condition == name]
            for ax, (curve, (label, index)) in zip(row, CURVES.items(), strict=True):
                _draw_curves(ax, reports, curve)
                ax.set_xlabel(label)
                ax.set_title(f"{index} index{_by_stage(reports, index)}", loc="left", fontsize=9)
            row[0].set_ylabel(f"{name}\ntest error")
            row[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[0][0].legend(frameon=False)


def _draw_curves(ax: Axes, reports: Sequence[Mapping[str, Any]], curve: str) -> None:
    for stage, colour in enumerate(COLOURS):
        lines = np.array([report["errors"][stage][curve] for report in reports])
        for line in lines:
            ax.plot(np.arange(1, len(line) + 1), line, "-", lw=0.6, alpha=0.4, color=colour)
        if len(lines):
            mean = lines.mean(axis=0)
            label = f"stage {stage + 1}"
            ax.plot(np.arange(1, len(mean) + 1), mean, "-", lw=1.8, color=colour, label=label)
    for chance in {report["chance"] for report in reports}:
        ax.axhline(chance, color="0.6", ls=":", lw=1)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_ylim(0, 1)


def _by_stage(reports: Sequence[Mapping[str, Any]], index: str) -> str:
    """Return the mean of an index in each stage, as text."""
    if not reports:
        return ""
    values = np.array([report[index] for report in reports], np.float64)
    defined = [column[~np.isnan(column)] for column in values.T]
    return ": " + ", ".join(f"{each.mean():.2f}" if len(each) else "-" for each in defined)
