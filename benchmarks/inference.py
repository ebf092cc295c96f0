"""Speed-up of adaptive depth for a trained model: `python -m benchmarks.inference`."""

import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.datasets import evaluation_batches

from .nais_nets import change_of
from .timing import describe_machine, interleave, speedup

# A threshold below the norm of any update, 0 included; a user cannot set it.
NEVER = -1.0
THRESHOLDS = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)


def inference(
    weights: Annotated[
        str | None,
        typer.Option(help="A .keras file of a trained nais_adaptive; by default one is trained."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Data set of the model.")] = "digits",
    epochs: Annotated[int, typer.Option(help="Number of epochs without --weights.")] = 5,
    blocks: Annotated[int, typer.Option(help="Blocks in a stage without --weights.")] = 18,
    thresholds: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            help="Stopping threshold, repeatable.",
            show_default="its own and 1e-4 to 1",
        ),
    ] = None,
    max_unroll: Annotated[
        int | None, typer.Option(help="Largest number K of updates of a block.")
    ] = None,
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size", help="Images in a batch, repeatable.", show_default="1 and 64"
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Number of test images in a run.")] = 64,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 9,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time the predictions of a trained model with fixed and with adaptive depth.

    The ideal speed-up is K/d, for at most K updates of a block and a mean depth d.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = weights or _train(folder, dataset, epochs, blocks)
        # Two models: one graph for all thresholds, and one without a threshold.
        adaptive, fixed = (keras.models.load_model(file, compile=False) for _ in range(2))
    model_thresholds = {block.threshold for block in ki.iterated_blocks(adaptive)} - {None}
    if max_unroll is not None:
        for net in (adaptive, fixed):
            ki.set_depth(net, max_unroll=max_unroll)
    ki.set_depth(fixed, threshold=None)
    chosen = sorted({NEVER, *(thresholds or {*THRESHOLDS, *model_thresholds})})
    limit = max(block.max_unroll for block in ki.iterated_blocks(fixed))

    lines, rows = [], []
    for batch_size in batch_sizes or [1, 64]:
        inputs = _test_images(dataset, batch_size, images)
        seconds, depths = _measure(fixed, adaptive, chosen, inputs, rounds)
        baseline = seconds.pop("fixed")
        for threshold, runs in seconds.items():
            depth, differing = depths[threshold]
            ideal, gain = limit / depth, speedup(baseline, runs)
            rows.append(
                {
                    "batch_size": batch_size,
                    "threshold": None if threshold == NEVER else threshold,
                    "mean_depth": depth,
                    "max_unroll": limit,
                    "ideal_speedup": ideal,
                    "speedup": gain,
                    "share_of_ideal": gain / ideal,
                    "seconds": runs,
                    "seconds_fixed": baseline,
                    "depths_unlike_the_masked_loop": differing,
                }
            )
            lines.append(_line(rows[-1], images))
    header = [
        "batch",
        "threshold",
        "images/s",
        "d",
        "K/d",
        "speed-up",
        "of the ideal",
        "other depths",
    ]
    title = (
        f"Predictions of a trained {adaptive.name} on {dataset}, K = {limit}; {describe_machine()}"
    )
    show(title, header, lines, {"machine": describe_machine(), "rows": rows}, output)
    print("speed-up: over fixed depth; other depths: share that differs from a masked loop")


def _line(row: dict[str, Any], images: int) -> list[str]:
    """Return the line of the printed table for a row of the JSON file."""
    return [
        str(row["batch_size"]),
        "never" if row["threshold"] is None else f"{row['threshold']:g}",
        f"{images / float(np.median(row['seconds'])):.1f}",
        f"{row['mean_depth']:.2f}",
        f"{row['ideal_speedup']:.2f}",
        f"{row['speedup']:.2f}",
        f"{row['share_of_ideal']:.0%}",
        f"{row['depths_unlike_the_masked_loop']:.2%}",
    ]


def _train(folder: str, dataset: str, epochs: int, blocks: int) -> Path:
    """Train a `nais_adaptive` with `training.fit`, and return its file."""
    run = Path(folder) / "run"
    settings = {"dataset": dataset, "epochs": epochs, "blocks": blocks, "output": run}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "training.fit", "--model", "nais_adaptive", *options]
    subprocess.run(command, check=True)
    return run / "last.keras"


def _test_images(dataset: str, batch_size: int, images: int) -> list[tf.Tensor]:
    """Return the first test images, scaled for the model, in full batches."""
    data = datasets.load(dataset)
    if images % batch_size or images > len(data.test):
        raise SystemExit(
            f"--images must be a multiple of {batch_size} and at most {len(data.test)}, the number "
            f"of test images of {dataset}: {images}"
        )
    all_batches = evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=batch_size)
    return [batch for batch, _ in all_batches.take(images // batch_size)]


def _measure(fixed, adaptive, thresholds, batches, rounds):
    """Time both models on the batches.

    Returns:
        Two dicts: the seconds by threshold and under `"fixed"`; and by threshold the mean depth
        and the share of depths, over images and blocks, that differ from those of a masked loop.
    """
    # The graphs must be traced with a threshold.
    ki.set_depth(adaptive, threshold=1.0)
    view = ki.with_depth(adaptive)
    read_depth = tf.function(lambda x: view(x, training=False)["depth"], reduce_retracing=True)

    def timed(net):
        function = tf.function(lambda x: net(x, training=False), reduce_retracing=True)

        def run(threshold):
            if threshold is not None:
                _set_threshold(net, threshold)
            begin = time.perf_counter()
            for batch in batches:
                function(batch).numpy()
            return time.perf_counter() - begin

        return run

    run_fixed, run_adaptive = timed(fixed), timed(adaptive)
    candidates, depths = {"fixed": lambda: run_fixed(None)}, {}
    for threshold in thresholds:
        candidates[threshold] = functools.partial(run_adaptive, threshold)
        _set_threshold(adaptive, threshold)
        depth = np.concatenate([read_depth(batch) for batch in batches])
        expected = np.concatenate([masked_depths(adaptive, batch, threshold) for batch in batches])
        depths[threshold] = float(depth.mean()), float((depth != expected).mean())
    for candidate in candidates.values():
        candidate()
    return interleave(candidates, rounds), depths


def _set_threshold(model: keras.Model, threshold: float) -> None:
    """Set the threshold of all blocks; unlike `set_depth` it accepts `NEVER`."""
    for block in ki.iterated_blocks(model):
        _, variable = block.depth_variables
        variable.assign(threshold)


def masked_depths(model: keras.Model, images: tf.Tensor, threshold: float) -> np.ndarray:
    """Return the depth of each image in each block, `[N, blocks]`, from a loop without compaction.

    Args:
        model: A chain of Keras's layers and tied `NAISConv2D` blocks that start at their input.
        images: A batch.
        threshold: The stopping threshold, instead of the blocks' own.
    """
    state, depths = tf.convert_to_tensor(images), []
    for layer in model.layers[1:]:
        if not isinstance(layer, ki.NAISConv2D):
            state = layer(state, training=False)
            continue
        change = change_of(layer, state)
        active, depth = np.ones(len(state), bool), np.zeros(len(state), int)
        for _ in range(layer.max_unroll):
            update = change(state).numpy()
            state += update * active[:, None, None, None]
            depth += active
            active &= np.linalg.norm(update.reshape(len(update), -1), axis=1) >= threshold
            if not active.any():
                break
        depths.append(depth)
    return np.stack(depths, axis=1)


app = make_command_app(inference)

if __name__ == "__main__":
    app()
