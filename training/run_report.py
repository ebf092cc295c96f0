"""The output of a run: its header, its table of results and its curves."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.console import Console
from rich.table import Table

import keras_iterconv as ki
from keras_iterconv.datasets import ImageData
from keras_iterconv.models.registry import FORMER_NAMES

from .run_folder import RunFolder
from .settings import Settings

# Above this share of (image, block) pairs at the limit, the depth hardly depends on the image.
_MANY_AT_LIMIT = 0.5


def print_header(
    console: Console,
    settings: Settings,
    data: ImageData,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    folder: RunFolder,
) -> None:
    """Print the settings of a run before training."""
    table = Table.grid(padding=(0, 2))
    name = FORMER_NAMES.get(settings.model)
    former = "" if name is None else f" (a former name of {name}, for any data set)"
    table.add_row("model", f"{settings.model}{former}: {model.count_params():,} parameters")
    table.add_row("depth", describe_depth(model))
    table.add_row(
        "data",
        f"{settings.dataset}: {len(data.train):,} training, {len(data.validation):,} validation, "
        f"{len(data.test):,} test images; {settings.pixels} pixels",
    )
    table.add_row(
        "training",
        f"{_count(settings.epochs, 'epoch')}, batch {settings.batch_size}, "
        f"learning rate {settings.learning_rate:g} ({settings.schedule}), seed {settings.seed}, "
        f"{_count(strategy.num_replicas_in_sync, 'replica')}",
    )
    if settings.unroll_schedule is not None:
        table.add_row("unrolling", f"updates of a block by epoch: {settings.unroll_schedule}")
    if settings.coupling is not None:
        blocks = settings.coupling_members or "all"
        table.add_row(
            "coupling",
            f"{settings.coupling:g} of the blocks' mean gradient, {settings.coupling_kernel} "
            f"kernel, blocks {blocks}",
        )
    table.add_row("folder", str(folder.path))
    console.print(table)


def describe_depth(model: keras.Model) -> str:
    """Return the depth of a model as text: updates, blocks and stopping threshold."""
    blocks = ki.iterated_blocks(model)
    if all(block.scheduled for block in blocks):
        # Each block of a stage is one update.
        inside = f"{_count(len(blocks), 'stage')} of {_count(blocks[0].max_unroll, 'block')}"
    else:
        inside = _count(len(blocks), "block")
    threshold = blocks[0].threshold
    adaptive = "" if threshold is None else f" at most; stopping threshold {threshold:g}"
    return f"{_count(ki.processing_depth(model), 'update')} in {inside}{adaptive}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_result(
    console: Console,
    result: dict[str, Any],
    indices: ki.IndexReport | None,
    folder: RunFolder,
) -> None:
    """Print the tables of a finished run."""
    table = Table(title=f"{result['model']} on {result['dataset']}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for part in ("train", "validation", "test"):
        accuracy = result[f"{part}_accuracy"]
        table.add_row(f"{part} accuracy", "none" if accuracy is None else f"{accuracy:.2%}")
    if "test_accuracy_mirrored" in result:
        table.add_row(
            "test accuracy, with mirror images", f"{result['test_accuracy_mirrored']:.2%}"
        )
    table.add_row("generalisation gap (train - test)", f"{result['generalization_gap']:.2%}")
    table.add_row(
        "updates per test image, mean",
        f"{result['mean_depth']:.1f} of {result['processing_depth']}",
    )
    if result["adaptive"]:
        table.add_row("fewest and most updates", f"{result['min_depth']} and {result['max_depth']}")
        table.add_row("images x blocks at the limit", f"{result['share_at_limit']:.2%}")
    if result["share_not_finite"]:
        table.add_row("images x blocks not finite", f"{result['share_not_finite']:.2%}")
    table.add_row("training speed", f"{result['images_per_second']:.0f} images/s")
    table.add_row("training time", f"{result['seconds']:.0f} s")
    console.print(table)
    if "calibrated" in result:
        console.print(f"Calibrated to {result['calibrated']}", soft_wrap=True)
    if indices is not None:
        console.print(indices.table())
    if result["adaptive"] and result["share_at_limit"] > _MANY_AT_LIMIT:
        console.print(_warn_of_limit(result["share_at_limit"]), style="yellow")
    console.print(f"All files of the run are in {folder.path}", soft_wrap=True)


def _warn_of_limit(share: float) -> str:
    return (
        f"In {share:.0%} of the cases an image made all updates of a block without converging, so "
        "the depth hardly depends on the image. Raise --max-unroll or --threshold, or train with "
        '--settling; see docs/blocks.md, "When every image reaches the limit", for other remedies.'
    )


def plot_curves(
    path: Path, rows: list[dict[str, float]], settings: Settings, test_accuracy: float
) -> None:
    """Draw loss and accuracy by epoch.

    Args:
        path: The image file to write.
        rows: The measures of each epoch, as in `history.csv`; without a validation part they lack
            `val_loss` and `val_accuracy`.
        settings: The settings of the run.
        test_accuracy: The accuracy on the test part after the last epoch.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{settings.model} on {settings.dataset}, seed {settings.seed}")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
        axes.plot(epochs, [row[measure] for row in rows], "o-", ms=4, label="training, running")
        if f"val_{measure}" in rows[0]:
            validation = [row[f"val_{measure}"] for row in rows]
            axes.plot(epochs, validation, "s-", ms=4, label="validation")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    loss.set_ylabel("cross-entropy")
    loss.set_yscale("log")
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.axhline(
        test_accuracy, color="0.4", ls="--", lw=1, label=f"test, at the end: {test_accuracy:.2%}"
    )
    loss.legend(frameon=False)
    accuracy.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
