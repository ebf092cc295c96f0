"""Predictions by Keras and by ONNX Runtime: `python -m benchmarks.onnx_inference`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import keras

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

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
from benchmarks.harness.intervals import speedup
from benchmarks.harness.measured_tables import show
from benchmarks.harness.process_settings import count_cores
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.zoo.index import read_index

KERAS, COMPILED = "Keras, predict_on_batch", "Keras, compiled function"
ONNX, ALL_UPDATES, ONE_UPDATE = "ONNX Runtime", "  none stops", "  one update"
# The contrasts of random images, powers of ten; they spread the depths.
CONTRASTS = (-3, 1)


def onnx_inference(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Models with a threshold: names in the zoo, or of `ki.list_models()`, which get "
            "random weights and random colour images."
        ),
    ],
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    blocks: Annotated[int, typer.Option(help="Blocks in a stage of a random model.")] = 18,
    side: Annotated[int, typer.Option(help="Height and width of a random image.")] = 32,
    batch_sizes: BatchSizesOption = None,
    images: Annotated[int, typer.Option(help="Number of images in a run.")] = 64,
    rounds: RoundsOption = 7,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time Keras, and the exported ONNX file with and without a threshold.

    All return logits, depth and status. The ideal speed-up of stopping early is K/d, for at most K
    updates of a block and a mean depth d. ONNX Runtime has one thread for a single image, and all
    cores for a batch; Keras has all cores. The fixed cost of a block is the time of one update less
    that of each further one.
    """
    lines: list[list[str]] = []
    rows: list[dict] = []
    for name in names:
        net = {"name": name, "zoo": zoo, "blocks": blocks, "side": side, "images": images}
        with Bench(device) as bench:
            for size in batch_sizes or [1, 64]:
                row = {"model": name, "batch_size": size, **_measure(bench, net, size, rounds)}
                rows.append(row)
                lines += _lines(row)
    header = ["model", "batch", "candidate", "ms per batch", "speed-up", "95% interval"]
    show("Predictions", [*header, "of K/d", "block, us"], lines, {"rows": rows}, output)
    print("speed-up: over predict_on_batch; block, us: one further update, and the fixed cost")


def _load(
    name: str, zoo: Path, blocks: int, side: int, images: int
) -> tuple[keras.Model, np.ndarray]:
    """Return a model and its standardised inputs."""
    entry = read_index(zoo)["models"].get(name)
    if entry is None:
        keras.utils.set_random_seed(0)
        model = ki.create_model(name, (side, side, 3), 10, blocks=blocks)
        rng = np.random.default_rng(0)
        contrasts = rng.permutation(np.logspace(*CONTRASTS, images)).reshape(-1, 1, 1, 1)
        values = contrasts * rng.normal(size=(images, side, side, 3))
    else:
        model = ki.load_pretrained(name, zoo)
        raw = datasets.load(entry["dataset"]).test.images[:images].astype(np.float32)
        values = np.asarray((raw - np.float32(entry["mean"])) / np.float32(entry["std"]))
    if any(block.threshold is None for block in ki.iterated_blocks(model)):
        raise typer.BadParameter(f"{name} must have a threshold")
    return model, values.astype(np.float32)


class KerasNet:
    """A model whose predictions have logits, depth and status, by `predict_on_batch`.

    Args:
        name: Name of the model.
        zoo: Folder of the zoo.
        blocks: Blocks in a stage of a random model.
        side: Height and width of a random image.
        images: Number of images in a run.
    """

    def __init__(self, name: str, zoo: str, blocks: int, side: int, images: int):
        self.model, self.values = _load(name, Path(zoo), blocks, side, images)
        self.adaptive = ki.with_depth(self.model)

    def run(self, size: int) -> None:
        """Predict all images in batches of `size`."""
        for begin in range(0, len(self.values), size):
            self.adaptive.predict_on_batch(self.values[begin : begin + size])

    def depth(self) -> np.ndarray:
        """Return the depth of each image in each block."""
        return self.adaptive.predict_on_batch(self.values)["depth"]

    def limit(self) -> int:
        """Return the largest number of updates of a block."""
        return max(block.max_unroll for block in ki.iterated_blocks(self.model))

    def exported(self) -> tuple[bytes, np.ndarray]:
        """Return the ONNX file, and the inputs."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ki.export_onnx(self.model, path)
            return path.read_bytes(), self.values


class CompiledNet(KerasNet):
    """The same in one compiled function."""

    def __init__(self, **net: Any):
        super().__init__(**net)
        spec = tf.TensorSpec((None, *self.values.shape[1:]), tf.float32)
        self.compiled = tf.function(self.adaptive, input_signature=[spec])

    def run(self, size: int) -> None:
        """Predict all images in batches of `size`."""
        for begin in range(0, len(self.values), size):
            outputs = self.compiled(self.values[begin : begin + size])
            tf.nest.map_structure(np.asarray, outputs)


def _measure(bench: Bench, net: Mapping[str, Any], size: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of each candidate, and what follows from them."""
    predict = Candidate("benchmarks.onnx_inference:KerasNet", net, {"size": size})
    file, values = bench.ask(predict, "exported")
    threads = count_cores() if size > 1 else 1
    session = Candidate(
        "benchmarks.onnx_candidate:OnnxSession",
        {"file": file, "inputs": values, "threads": threads},
        {"size": size},
    )
    # One session for three depths, which are its inputs.
    never = {"size": size, "threshold": np.array(0, np.float32)}
    candidates = {
        KERAS: predict,
        COMPILED: predict._replace(target="benchmarks.onnx_inference:CompiledNet"),
        ONNX: session,
        ALL_UPDATES: session._replace(call=never),
        ONE_UPDATE: session._replace(call={**never, "max_unroll": np.array(1, np.int32)}),
    }
    depths, limit = bench.ask(session, "depth", size=size), bench.ask(predict, "limit")
    expected = bench.ask(predict, "depth")
    measured = bench.measure(candidates, rounds)
    batches = -(-len(values) // size)
    all_updates, one_update = (
        np.array(measured.seconds[text]) / batches / depths.shape[1] * 1e6
        for text in (ALL_UPDATES, ONE_UPDATE)
    )
    update = (all_updates - one_update) / max(limit - 1, 1)
    ideal = limit / float(depths.mean())
    return {
        "batches": batches,
        "max_unroll": limit,
        "mean_depth": float(depths.mean()),
        "depths_unlike_keras": float((depths != expected).mean()),
        "ideal_speedup": ideal,
        "share_of_ideal": measured.speedup(ALL_UPDATES, ONNX).median / ideal,
        "update_us": float(np.median(update)),
        "fixed_us": float(np.median(one_update - update)),
        **measured.facts(),
    }


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    """Return the lines of the printed table for a row of the JSON file."""
    lines = []
    for candidate, runs in row["seconds"].items():
        milliseconds = np.median(runs) * 1e3 / row["batches"]
        ratio = speedup(row["seconds"][KERAS], runs)
        of_ideal = block = ""
        if candidate == ONNX:
            of_ideal = f"{row['share_of_ideal']:.0%} of {row['ideal_speedup']:.2f}"
        if candidate == ONE_UPDATE:
            block = f"{row['update_us']:.1f}, {row['fixed_us']:.1f}"
        line = [row["model"], str(row["batch_size"]), candidate, f"{milliseconds:.2f}"]
        lines.append([*line, f"{ratio.median:.2f}", ratio.interval, of_ideal, block])
    return lines


app = make_command_app(onnx_inference)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.onnx_inference")
