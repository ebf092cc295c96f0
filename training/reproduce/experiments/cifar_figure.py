"""The figure of NAIS-Net and ResNets on CIFAR, after Fig. 4 of NAIS-Net."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..experiment import Results
from ..figure_file import figure_file

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#0072B2")
# The lines of a curve: of the training images, and of the validation images.
STYLES = {"accuracy": ":", "val_accuracy": "-"}


def draw_cifar(
    path: Path,
    results: Results,
    datasets: Sequence[str],
    nets: Sequence[str],
    name_of: Callable[[str, str], str],
) -> None:
    """Draw the accuracy by epoch and the gap of each net, a row for each data set.

    Args:
        path: The image file to write.
        results: The results.
        datasets: The data sets.
        nets: The nets.
        name_of: A function from data set and net to the name of a condition.
    """
    with figure_file(path, (9, 3.2 * len(datasets))) as figure:
        axes = figure.subplots(
            len(datasets), 2, squeeze=False, gridspec_kw={"width_ratios": [1.6, 1]}
        )
        for (curves, gaps), dataset in zip(axes, datasets, strict=True):
            for place, (net, colour) in enumerate(zip(nets, COLOURS, strict=True)):
                name = name_of(dataset, net)
                _draw_curves(curves, results, name, net, colour)
                values = results.values(name, "gap")
                gaps.plot([place] * len(values), values, "o", color=colour, alpha=0.5, mec="none")
                if len(values):
                    gaps.plot(place, values.mean(), "_", color=colour, ms=22, mew=2)
            curves.set_title(
                f"{dataset}: dotted training, solid validation", loc="left", fontsize=9
            )
            curves.set_xlabel("epoch")
            curves.set_ylabel("accuracy")
            curves.xaxis.set_major_locator(MaxNLocator(integer=True))
            gaps.set_title("gap: training less test accuracy", loc="left", fontsize=9)
            gaps.set_xticks(range(len(nets)), [net.replace("_", "\n") for net in nets])
            gaps.set_xlim(-0.5, len(nets) - 0.5)
            for ax in (curves, gaps):
                ax.yaxis.set_major_formatter(PercentFormatter(1))
                ax.grid(axis="y", alpha=0.3)
        axes[0][0].legend(frameon=False)


def _draw_curves(ax: Axes, results: Results, name: str, label: str, colour: str) -> None:
    """Draw the mean accuracy over the seeds by epoch."""
    found = [row.measures["curves"] for row in results.rows if row.condition == name]
    for measure, style in STYLES.items():
        curves = [curve[measure] for curve in found if measure in curve]
        if curves:
            mean = np.mean(curves, axis=0)
            shown = label if style == "-" else None
            ax.plot(1 + np.arange(len(mean)), mean, style, color=colour, lw=1.4, label=shown)
