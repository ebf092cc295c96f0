"""Accuracy and depth against the length of a sequence: `python -m benchmarks.sequence_depth`."""

from pathlib import Path
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import matplotlib
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter
from scipy.stats import spearmanr

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv.datasets.prefix_sums import draw_prefix_sums

# Numbers of updates, and of sequences in one call.
LIMITS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 21, 24, 30, 36, 45, 60, 80, 100, 150, 200)
BATCH = 50
# Viridis, from light to dark with the length; its yellow is too faint.
_COLORS, _LIGHTEST = "viridis", 0.85


def sequence_depth(
    name: Annotated[str, typer.Option(help="Net of the zoo.")] = "deep_thinking_prefix_sums",
    file: Annotated[str | None, typer.Option(help="A .keras file in its place.")] = None,
    lengths: Annotated[str, typer.Option(help="Lengths in bits.")] = "12,24,48,96,192",
    sequences: Annotated[int, typer.Option(help="Number of new sequences of a length.")] = 200,
    figure: Annotated[str | None, typer.Option(help="Image file to draw.")] = None,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure accuracy by number of updates, and the depth at which sequences stop.

    A sequence counts as right where all its positions are.
    """
    model: Any = ki.load_pretrained(name) if file is None else keras.models.load_model(file)
    found = {}
    for number, bits in enumerate(int(text) for text in lengths.split(",")):
        found[bits] = _measure(model, bits, sequences, np.random.default_rng((2026, number)))
    every = [(bits, k) for bits, each in found.items() for k in each["depth"]]
    rank = float(spearmanr(*zip(*every, strict=True)).statistic)
    lines = [
        [
            f"{bits}",
            f"{each['accuracy']:.1%}",
            f"{np.mean(each['depth']):.1f}",
            f"{np.median(each['depth']):.0f}",
            f"{max(each['depth'])}",
            f"{each['at_limit']:.1%}",
        ]
        for bits, each in found.items()
    ]
    title = (
        f"{sequences} new sequences of each length, stopped by the threshold; "
        f"rank correlation of length and depth {rank:.3f}"
    )
    header = ["bits", "whole sequences right", "updates, mean", "median", "largest", "at limit"]
    show(title, header, lines, {"rank_correlation": rank, "lengths": found}, output)
    if figure is not None:
        draw(found, Path(figure))


def _measure(model: Any, bits: int, sequences: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return accuracy by limit, and the depths of sequences that stop by themselves."""
    raw, labels = draw_prefix_sums(sequences, bits, rng)
    images = model.preprocessing(raw.astype(np.float32))
    batches = [(images[n : n + BATCH], labels[n : n + BATCH]) for n in range(0, sequences, BATCH)]
    report = ki.accuracy_by_depth(model, batches, LIMITS, thresholds=[])
    view = ki.with_depth(model)
    depth = np.concatenate([view(part)["depth"].numpy().ravel() for part, _ in batches])
    return {
        "accuracy": report.own.accuracy,
        "at_limit": report.own.share_at_limit,
        "depth": depth.tolist(),
        "by_updates": {point.max_unroll: point.accuracy for point in report.by_max_unroll},
    }


def draw(found: dict[int, dict], path: Path) -> Figure:
    """Draw accuracy against updates, and depth against length.

    Args:
        found: By length the result of the measurement.
        path: Image file to write.

    Returns:
        The figure that was written.
    """
    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    shades = np.linspace(_LIGHTEST, 0, len(found))
    colors = dict(zip(found, matplotlib.colormaps[_COLORS](shades), strict=True))
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8.6, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _draw_accuracy(left, found, colors)
        _draw_depth(right, found, colors)
        figure.savefig(path, dpi=200)
    return figure


def _draw_accuracy(axes: Axes, found: dict, colors: dict) -> None:
    axes.set_xscale("log")
    for bits, each in found.items():
        points = each["by_updates"]
        axes.plot(list(points), list(points.values()), color=colors[bits], lw=1.4, marker=".", ms=4)
        # The label stands where the curve crosses one half.
        middle = next((k for k, share in points.items() if share >= 0.5), max(points))
        axes.annotate(
            f"{bits}", (middle, 0.5), (3, -10), textcoords="offset points", color=colors[bits]
        )
    _number_ticks(axes, (1, 2, 5, 10, 20, 50, 100, 200))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.set_xlabel("updates, at most")
    axes.set_ylabel("whole sequences right")
    axes.set_title("Accuracy by length in bits", loc="left", fontsize=9)


def _draw_depth(axes: Axes, found: dict, colors: dict) -> None:
    axes.set_xscale("log")
    rng = np.random.default_rng(0)
    for bits, each in found.items():
        depth = np.array(each["depth"])
        # Spread a little, so that equal depths are seen.
        places = bits * np.exp(rng.normal(0, 0.05, len(depth)))
        axes.plot(places, depth, ".", ms=3, alpha=0.4, mew=0, color=colors[bits])
    means = [np.mean(each["depth"]) for each in found.values()]
    axes.plot(list(found), means, "o-", color="0.2", lw=1.2, ms=4)
    _number_ticks(axes, tuple(found))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.set_xlabel("length, bits")
    axes.set_ylabel("updates until it stops")
    axes.set_title("Depth by the stopping rule: sequences, and their mean", loc="left", fontsize=9)


def _number_ticks(axes: Axes, ticks: tuple[int, ...]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


app = make_command_app(sequence_depth)

if __name__ == "__main__":
    app()
