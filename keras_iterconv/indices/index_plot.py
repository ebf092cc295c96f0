"""The figure of error curves and indices, as Lippl et al., Fig. 2."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Paul Tol's "muted" colours, which colour-blind readers can distinguish.
COLORS = (
    "#332288",
    "#CC6677",
    "#117733",
    "#88CCEE",
    "#AA4499",
    "#DDCC77",
    "#882255",
    "#44AA99",
    "#999933",
)
_CURVES = (
    ("early_readout", "read out after block", "convergence"),
    ("left_out", "block left out", "recurrence"),
    ("repeated", "further runs of the last block", "divergence"),
)


def plot_indices(reports: Sequence, labels: Sequence[str] | None = None) -> Figure:
    """Return a figure of error curves (a), indices (b), and error against indices (c) of nets.

    Args:
        reports: Values of `IndexReport`, of nets with equal numbers of stages.
        labels: Label of each net. Nets with one label share a colour and are instances of one
            condition. None for one condition.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: There is no report, the numbers of reports and labels differ, or the nets differ
            in the number of stages, or within a label in the number of blocks.

    Example:
        >>> x = inputs = keras.Input((4,))
        >>> for t in range(3):
        ...     x = keras.layers.Add(name=f"add{t}")([x, keras.layers.Dense(4)(x)])
        >>> model = keras.Model(inputs, keras.layers.Dense(3)(x))
        >>> data = np.random.default_rng(0).normal(size=(64, 4))
        >>> labels = model.predict(data, verbose=0).argmax(-1)
        >>> report = ki.measure_indices(ki.chain(model, "add."), (data, labels), resamples=10)
        >>> figure = ki.plot_indices([report], labels=["a random net"])
        >>> figure.savefig("indices.svg")

    Reference:
        Lippl et al. 2024, Fig. 2 and 3c.

    See also:
        `measure_indices`; `IndexReport.plot`, for one net; `plot_accuracy_by_depth`.
    """
    reports = list(reports)
    labels = [""] * len(reports) if labels is None else list(labels)
    if not reports or len(labels) != len(reports):
        raise ValueError(
            "`reports` must hold at least one report, and `labels` one for each. "
            f"Received: {len(reports)} reports, {len(labels)} labels"
        )
    stages = len(reports[0].stages)
    if any(len(report.stages) != stages for report in reports):
        raise ValueError(
            "`reports` must be of nets with equal numbers of stages. "
            f"Received: {[len(report.stages) for report in reports]} stages"
        )
    conditions = list(dict.fromkeys(labels))
    lengths = {
        (label, *(len(errors.early_readout) for errors in report.errors))
        for report, label in zip(reports, labels, strict=True)
    }
    if len(lengths) > len(conditions):
        raise ValueError(
            "`reports` of one label must be of nets with equal numbers of blocks; give the others "
            f"another label. Received: {sorted(lengths)}"
        )
    few = len(conditions) <= len(COLORS)
    viridis = matplotlib.colormaps["viridis"]
    colors = {
        label: COLORS[i] if few else viridis(i / (len(conditions) - 1))
        for i, label in enumerate(conditions)
    }
    columns = 3 * stages
    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(max(10, 1.25 * columns), 8.6), layout="constrained")
        FigureCanvasAgg(figure)
        subfigures: Any = figure.subfigures(3, 1, height_ratios=(1.1, 1, 1))
        top, middle, bottom = subfigures
        _curves(top, reports, labels, colors, stages)
        _values(middle, reports, labels, colors, conditions, stages)
        _against_error(bottom, reports, labels, colors, conditions)
    return figure


def _curves(figure, reports, labels, colors, stages):
    figure.suptitle(
        "a  error of the perturbed net; bold: mean of a condition", x=0.01, ha="left", weight="bold"
    )
    panels = figure.subplots(1, 3 * stages, sharey=True)
    for c, (field, caption, _) in enumerate(_CURVES):
        for s in range(stages):
            axes = panels[c * stages + s]
            for label, color in colors.items():
                curves = [
                    getattr(report.errors[s], field)
                    for report, report_label in zip(reports, labels, strict=True)
                    if report_label == label
                ]
                steps = range(1, len(curves[0]) + 1)
                if len(curves) > 1:
                    axes.plot(steps, np.transpose(curves), color=color, lw=0.7, alpha=0.25)
                axes.plot(steps, np.mean(curves, axis=0), color=color, lw=1.6)
            for chance in {report.chance for report in reports}:
                axes.axhline(chance, color="0.6", ls=":", lw=1)
            axes.set_title(reports[0].stages[s], fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_ylim(0, 1)
        panels[c * stages + stages // 2].set_xlabel(caption)
    panels[0].set_ylabel("error (dotted: chance)")


def _values(figure, reports, labels, colors, conditions, stages):
    figure.suptitle("b  indices by stage and, large, their mean", x=0.01, ha="left", weight="bold")
    shift = 0.7 / max(len(conditions) - 1, 1)
    large = 8 if len(conditions) < 5 else 5.5
    for axes, (_, _, name) in zip(figure.subplots(1, 3), _CURVES, strict=True):
        for report, label in zip(reports, labels, strict=True):
            offset = (conditions.index(label) - (len(conditions) - 1) / 2) * shift
            values = getattr(report, name)
            style = {"color": colors[label], "ls": "none", "marker": "o", "mew": 0}
            axes.plot(np.arange(stages) + offset, values, ms=3.5, alpha=0.5, **style)
            axes.plot(stages + 0.3 + offset, np.mean(values), ms=large, alpha=0.9, **style)
        axes.axvline(stages - 0.35, color="0.85", lw=1)
        axes.set_xticks([*range(stages), stages + 0.3], [*reports[0].stages, "mean"])
        axes.set_ylabel(f"{name} index")
        axes.grid(axis="y", alpha=0.3)


def _against_error(figure, reports, labels, colors, conditions):
    figure.suptitle("c  error of the net against its indices", x=0.01, ha="left", weight="bold")
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, ("convergence", "divergence"), strict=False):
        for label in conditions:
            chosen = [r for r, name_of_r in zip(reports, labels, strict=True) if name_of_r == label]
            axes.plot(
                [np.mean(getattr(report, name)) for report in chosen],
                [report.error for report in chosen],
                "o",
                ms=6,
                alpha=0.8,
                mew=0,
                color=colors[label],
                label=label or None,
            )
        axes.set_xlabel(f"{name} index, mean of the stages")
        axes.set_ylabel("error")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
    panels[2].axis("off")
    if any(conditions):
        handles, names = panels[0].get_legend_handles_labels()
        panels[2].legend(handles, names, loc="center left", frameon=False, fontsize=9)
