"""The figure of NAIS-Net and its ablations on MNIST, after Fig. 3 of NAIS-Net."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from ..experiment import Results
from ..figure_file import figure_file
from .mnist_ablation_claims import ACTIVATIONS, MODELS, NAIS, STABLE, condition_of, losses

# One colour for each combination of SH and NA (Okabe and Ito), dashed with batch normalisation.
COLOURS = {"": "#0072B2", "-SH": "#D55E00", "-NA": "#009E73", "-SH-NA": "#AA4499"}


def draw_ablation(path: Path, results: Results) -> None:
    """Draw a row for each activation: loss by depth, test error, and one neuron of NAIS-Net.

    Lines of the loss are medians over the seeds. The neuron is that of the first seed's net.

    Args:
        path: The image file to write.
        results: The results.
    """
    with figure_file(path, (12, 7.2)) as figure:
        axes = figure.subplots(len(ACTIVATIONS), 3, squeeze=False)
        for row, activation in zip(axes, ACTIVATIONS, strict=True):
            _draw_losses(row[0], results, activation)
            _draw_errors(row[1], results, activation)
            _draw_neuron(row[2], results, activation)
        # Of the losses, and outside of them: their lines fill the panels.
        handles, names = axes[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, frameon=False, loc="outside lower left", ncols=5)


def _style(name: str) -> dict[str, Any]:
    if name == NAIS:
        return {"color": "black", "lw": 2.4}
    if name == STABLE:
        return {"color": "#666666", "lw": 1.4, "ls": ":"}
    kind = name.removeprefix("ResNet").removesuffix("-BN")
    return {"color": COLOURS[kind], "lw": 1.2, "ls": "--" if name.endswith("-BN") else "-"}


def _draw_losses(ax: Axes, results: Results, activation: str) -> None:
    for name in MODELS:
        curves = losses(results, name, activation)
        if curves:
            ax.plot(np.median(curves, axis=0), label=name, **_style(name))
    ax.set_yscale("log")
    ax.set_title(f"{activation}: test loss, read out at each depth", loc="left", fontsize=9)
    ax.set_xlabel("updates")


def _draw_errors(ax: Axes, results: Results, activation: str) -> None:
    for place, name in enumerate(MODELS):
        values = results.values(condition_of(name, activation), "error")
        clipped = results.values(condition_of(name, activation), "clipped")
        mark = "o" if not clipped.any() else "^"
        ax.plot(values, [place] * len(values), mark, ms=4, color=_style(name)["color"], alpha=0.7)
    ax.set_yticks(range(len(MODELS)), list(MODELS), fontsize=7)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    # One range for both activations, in which a log locator finds enough ticks.
    ax.set_xlim(0.01, 1)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title("test error (▲ trained with clipped gradients)", loc="left", fontsize=9)


def _draw_neuron(ax: Axes, results: Results, activation: str) -> None:
    rows = [row for row in results.rows if row.condition == condition_of(NAIS, activation)]
    colours = matplotlib.colormaps["tab10"]
    for row in rows[:1]:
        for label, curve in enumerate(row.measures["neuron"]):
            ax.plot(np.array(curve, float), color=colours(label), lw=1.2, label=str(label))
        ax.legend(frameon=False, title="class", loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_title("NAIS-Net: one neuron, an image of each class", loc="left", fontsize=9)
    ax.set_xlabel("updates")
