"""What stopping early saves, on a trained net: `python -m benchmarks.inference`."""

import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.measured_tables import show
from keras_iterconv import datasets
from keras_iterconv.datasets import evaluation_batches

from .nais_nets import change_of
from .timing import describe_machine, interleave, speedup

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Below the norm of any update, one of zeros included; no threshold that a user may set is.
NEVER = -1.0
THRESHOLDS = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)


@app.command()
def inference(
    weights: Annotated[
        str | None,
        typer.Option(help="A trained nais_adaptive, a .keras file; else one is trained."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="What it was trained on.")] = "digits",
    epochs: Annotated[int, typer.Option(help="How long to train, without --weights.")] = 5,
    blocks: Annotated[int, typer.Option(help="Its blocks a stage, without --weights.")] = 18,
    thresholds: Annotated[
        list[float] | None,
        typer.Option("--threshold", help="Given once for each; its own and 1e-4 to 1."),
    ] = None,
    max_unroll: Annotated[int | None, typer.Option(help="K; its own.")] = None,
    batch_sizes: Annotated[
        list[int] | None, typer.Option("--batch-size", help="Given once for each; 1 and 64.")
    ] = None,
    images: Annotated[int, typer.Option(help="Test images that each run answers for.")] = 64,
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 9,
    output: Annotated[str | None, typer.Option(help="A JSON file to write.")] = None,
) -> None:
    """Time a trained net's answers, of fixed depth and with images that stop by themselves.

    The ideal is K/d: K updates a block against the mean depth d of these images in these blocks.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = weights or _train(folder, dataset, epochs, blocks)
        # Two nets: one graph for all thresholds, and one without.
        adaptive, fixed = (keras.models.load_model(file, compile=False) for _ in range(2))
    own = {block.threshold for block in ki.iterated_blocks(adaptive)} - {None}
    if max_unroll is not None:
        for net in (adaptive, fixed):
            ki.set_depth(net, max_unroll=max_unroll)
    ki.set_depth(fixed, threshold=None)
    chosen = sorted({NEVER, *(thresholds or {*THRESHOLDS, *own})})
    limit = max(block.max_unroll for block in ki.iterated_blocks(fixed))

    lines, rows = [], []
    for batch_size in batch_sizes or [1, 64]:
        inputs = _test_images(dataset, batch_size, images)
        seconds, depths = _measure(fixed, adaptive, chosen, inputs, rounds)
        baseline = seconds.pop("fixed")
        for threshold, runs in seconds.items():
            depth, odd = depths[threshold]
            ideal, gain = limit / depth, speedup(baseline, runs)
            rate = images / float(np.median(runs))
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
                    "depths_unlike_the_masked_loop": odd,
                }
            )
            lines.append(
                [
                    str(batch_size),
                    "never" if threshold == NEVER else f"{threshold:g}",
                    f"{rate:.1f}",
                    f"{depth:.2f}",
                    f"{ideal:.2f}",
                    f"{gain:.2f}",
                    f"{gain / ideal:.0%}",
                    f"{odd:.2%}",
                ]
            )
    header = [
        "batch",
        "threshold",
        "images/s",
        "d",
        "K/d",
        "speed-up",
        "of the ideal",
        "odd depths",
    ]
    title = (
        f"Predictions of a trained {adaptive.name} on {dataset}, K = {limit}; {describe_machine()}"
    )
    show(title, header, lines, {"machine": describe_machine(), "rows": rows}, output)
    print("speed-up: over our loop of fixed depth; odd: depths unlike those of a masked loop")


def _train(folder: str, dataset: str, epochs: int, blocks: int) -> Path:
    """Train a `nais_adaptive` as the repository does, and return its file."""
    run = Path(folder) / "run"
    settings = {"dataset": dataset, "epochs": epochs, "blocks": blocks, "output": run}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "training.fit", "--model", "nais_adaptive", *options]
    subprocess.run(command, check=True)
    return run / "last.keras"


def _test_images(dataset: str, batch_size: int, images: int) -> list[tf.Tensor]:
    """Return the first test images as the net takes them, in full batches."""
    data = datasets.load(dataset)
    if images % batch_size or images > len(data.test):
        raise SystemExit(
            f"--images must be full batches of {batch_size}, of the {len(data.test)} test images "
            f"of {dataset}: {images}"
        )
    every = evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=batch_size)
    return [batch for batch, _ in every.take(images // batch_size)]


def _measure(fixed, adaptive, thresholds, batches, rounds):
    """Time both nets over the batches.

    Returns:
        Seconds by threshold, and under `"fixed"`; and by threshold the mean depth and the share
        of depths, by image and block, that are not those of the masked loop.
    """
    # So that graphs are traced with a threshold.
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
    """Set the threshold of all blocks, to `NEVER` too."""
    for block in ki.iterated_blocks(model):
        _, variable = block.depth_variables
        variable.assign(threshold)


def masked_depths(model: keras.Model, images, threshold: float) -> np.ndarray:
    """Return each block's depth for each image, `[N, blocks]`, from loops over the whole batch.

    Args:
        model: A chain of Keras's layers and tied `NAISConv2D` blocks that start at their input.
        images: A batch.
        threshold: In the place of the blocks' own.
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


if __name__ == "__main__":
    app()
