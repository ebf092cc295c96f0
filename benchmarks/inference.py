"""Speed-up of adaptive depth for a trained model: `python -m benchmarks.inference`."""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import (
    BatchSizesOption,
    Device,
    DeviceOption,
    OutputOption,
    RoundsOption,
)
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from benchmarks.nais_nets import change_of
from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.datasets import evaluation_batches

# A threshold below the norm of any update, 0 included; a user cannot set it.
NEVER = -1.0
FIXED = "fixed"
THRESHOLDS = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)


def inference(
    weights: Annotated[
        str | None,
        typer.Option(help="A .keras file of a trained nais_adaptive; by default one is trained."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Data set of the model.")] = "digits",
    epochs: Annotated[int, typer.Option(help="Number of epochs without --weights.")] = 5,
    limit_train: Annotated[
        int | None,
        typer.Option(help="Training images without --weights.", show_default="all"),
    ] = None,
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
    batch_sizes: BatchSizesOption = None,
    images: Annotated[int, typer.Option(help="Number of test images in a run.")] = 64,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts",
            help="Give each operation one thread, so that loops run parts of a batch in parallel.",
        ),
    ] = False,
    rounds: RoundsOption = 9,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time the predictions of a trained model with fixed and with adaptive depth.

    The ideal speed-up is K/d, for at most K updates of a block and a mean depth d.
    """
    with tempfile.TemporaryDirectory() as folder, Bench(device) as bench:
        file = weights or _train(folder, dataset, epochs, blocks, limit_train)
        net = {"file": file, "max_unroll": max_unroll, "dataset": dataset, "images": images}
        net["parts"] = parts
        adaptive = Candidate("benchmarks.inference:AdaptiveNet", net)
        fixed = Candidate("benchmarks.inference:FixedNet", net)
        name, limit, own = bench.ask(adaptive, "settings")
        chosen = sorted({NEVER, *(thresholds or {*THRESHOLDS, *own})})
        lines, rows = [], []
        for size in batch_sizes or [1, 64]:
            calls = {each: {"batch_size": size, "threshold": each} for each in chosen}
            candidates = {FIXED: fixed._replace(call={"batch_size": size})}
            candidates |= {str(each): adaptive._replace(call=calls[each]) for each in chosen}
            depths = {each: bench.ask(adaptive, "depth", **calls[each]) for each in chosen}
            measured = bench.measure(candidates, rounds)
            for threshold, (depth, differing) in depths.items():
                ideal, gain = limit / depth, measured.speedup(FIXED, str(threshold))
                rows.append(
                    {
                        "batch_size": size,
                        "threshold": None if threshold == NEVER else threshold,
                        "mean_depth": depth,
                        "max_unroll": limit,
                        "ideal_speedup": ideal,
                        "speedup": gain._asdict(),
                        "share_of_ideal": gain.median / ideal,
                        "seconds": measured.seconds[str(threshold)],
                        "seconds_fixed": measured.seconds[FIXED],
                        "depths_unlike_the_masked_loop": differing,
                        "rounds": measured.rounds_facts(),
                    }
                )
                lines.append(_line(rows[-1], images, gain.interval))
    header = ["batch", "threshold", "images/s", "d", "K/d", "speed-up", "95% interval"]
    header += ["of the ideal", "other depths"]
    title = f"Predictions of a trained {name} on {dataset}, K = {limit}"
    show(title, header, lines, {"rows": rows}, output)
    print("speed-up: over fixed depth; other depths: share that differs from a masked loop")


def _line(row: dict[str, Any], images: int, interval: str) -> list[str]:
    """Return the line of the printed table for a row of the JSON file."""
    return [
        str(row["batch_size"]),
        "never" if row["threshold"] is None else f"{row['threshold']:g}",
        f"{images / float(np.median(row['seconds'])):.1f}",
        f"{row['mean_depth']:.2f}",
        f"{row['ideal_speedup']:.2f}",
        f"{row['speedup']['median']:.2f}",
        interval,
        f"{row['share_of_ideal']:.0%}",
        f"{row['depths_unlike_the_masked_loop']:.2%}",
    ]


def _train(folder: str, dataset: str, epochs: int, blocks: int, limit_train: int | None) -> Path:
    """Train a `nais_adaptive` with `training.fit`, and return its file."""
    run = Path(folder) / "run"
    settings = {"dataset": dataset, "epochs": epochs, "blocks": blocks, "output": run}
    settings |= {} if limit_train is None else {"limit-train": limit_train}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "training.fit", "--model", "nais_adaptive", *options]
    subprocess.run(command, check=True)
    return run / "last.keras"


def _test_images(dataset: str, batch_size: int, images: int) -> list[tf.Tensor]:
    """Return the first test images, scaled for the model, in full batches."""
    data = datasets.load(dataset)
    if images % batch_size or images > len(data.test):
        raise UserError(
            f"--images must be a multiple of {batch_size} and at most {len(data.test)}, the number "
            f"of test images of {dataset}: {images}"
        )
    all_batches = evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=batch_size)
    return [batch for batch, _ in all_batches.take(images // batch_size)]


class FixedNet:
    """A trained model that makes all updates.

    Args:
        file: A .keras file.
        max_unroll: Largest number of updates of a block; None for the model's own.
        dataset: The data set of the images.
        images: Number of images in a run.
        parts: Whether each operation has one thread.
    """

    def __init__(self, file: str, max_unroll: int | None, dataset: str, images: int, parts: bool):
        if parts:
            tf.config.threading.set_intra_op_parallelism_threads(1)
        self.model = keras.models.load_model(file, compile=False)
        if max_unroll is not None:
            ki.set_depth(self.model, max_unroll=max_unroll)
        self.own = {block.threshold for block in ki.iterated_blocks(self.model)} - {None}
        self.read_images = functools.cache(functools.partial(_test_images, dataset, images=images))
        self.set_threshold()
        self.forward = tf.function(lambda x: self.model(x, training=False), reduce_retracing=True)

    def set_threshold(self) -> None:
        """Choose the graph without a threshold."""
        ki.set_depth(self.model, threshold=None)

    def run(self, batch_size: int) -> None:
        """Predict all images."""
        for batch in self.read_images(batch_size):
            self.forward(batch).numpy()

    def settings(self) -> tuple[str, int, set[float]]:
        """Return the model's name, its largest number of updates and its own thresholds."""
        limit = max(block.max_unroll for block in ki.iterated_blocks(self.model))
        return self.model.name, limit, self.own


class AdaptiveNet(FixedNet):
    """The same with a threshold; all thresholds are values of one graph, in one process."""

    def set_threshold(self) -> None:
        """Choose the graph with a threshold, whatever its value."""
        ki.set_depth(self.model, threshold=1.0)
        view = ki.with_depth(self.model)
        self.read_depth = tf.function(
            lambda x: view(x, training=False)["depth"], reduce_retracing=True
        )

    def run(self, batch_size: int, threshold: float = NEVER) -> None:
        """Predict all images."""
        self._assign(threshold)
        super().run(batch_size)

    def depth(self, batch_size: int, threshold: float) -> tuple[float, float]:
        """Return the mean depth, and the share that differs from that of a masked loop."""
        self._assign(threshold)
        batches = self.read_images(batch_size)
        depth = np.concatenate([self.read_depth(batch) for batch in batches])
        expected = [masked_depths(self.model, batch, threshold) for batch in batches]
        return float(depth.mean()), float((depth != np.concatenate(expected)).mean())

    def _assign(self, threshold: float) -> None:
        """Set the threshold of all blocks; unlike `set_depth` it accepts `NEVER`."""
        for block in ki.iterated_blocks(self.model):
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
    run_command(app, "python -m benchmarks.inference")
