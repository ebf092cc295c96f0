"""Predictions by Keras and by ONNX Runtime: `python -m benchmarks.onnx_inference`."""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import keras

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import numpy as np
import onnxruntime
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.zoo.index import read_index

from .timing import describe_machine, interleave, speedup

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
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size", help="Images in a batch, repeatable.", show_default="1 and 64"
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Number of images in a run.")] = 64,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 7,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
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
        model, values = _load(name, Path(zoo), blocks, side, images)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ki.export_onnx(model, path)
            file = path.read_bytes()
        for size in batch_sizes or [1, 64]:
            batches = [values[begin : begin + size] for begin in range(0, images, size)]
            row = {"model": name, "batch_size": size, **_measure(model, file, batches, rounds)}
            rows.append(row)
            lines += _lines(row)
    header = ["model", "batch", "candidate", "ms per batch", "speed-up", "of K/d", "block, us"]
    content = {"machine": describe_machine(), "rows": rows}
    show(f"Predictions; {describe_machine()}", header, lines, content, output)
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


def _measure(
    model: keras.Model, file: bytes, batches: Sequence[np.ndarray], rounds: int
) -> dict[str, Any]:
    """Return the seconds of each candidate, and what follows from them."""
    limit = max(block.max_unroll for block in ki.iterated_blocks(model))
    adaptive = ki.with_depth(model)
    spec = tf.TensorSpec((None, *batches[0].shape[1:]), tf.float32)
    compiled = tf.function(adaptive, input_signature=[spec])
    options = onnxruntime.SessionOptions()
    # That optional inputs are no constants is expected.
    options.log_severity_level = 4
    # Threads that spin lose much to other programs, and gain little without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if len(batches[0]) > 1 else 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name

    def run_session(batch: np.ndarray, **depth: Any) -> np.ndarray:
        return session.run(["logits", "depth", "status"], {image: batch, **depth})[1]

    never = {"threshold": np.array(0, np.float32)}
    runs: dict[str, Callable] = {
        KERAS: adaptive.predict_on_batch,
        COMPILED: lambda batch: tf.nest.map_structure(np.asarray, compiled(batch)),
        ONNX: run_session,
        ALL_UPDATES: functools.partial(run_session, **never),
        ONE_UPDATE: functools.partial(run_session, max_unroll=np.array(1, np.int32), **never),
    }
    depths = np.concatenate([run_session(batch) for batch in batches])
    expected = np.concatenate([adaptive.predict_on_batch(batch)["depth"] for batch in batches])
    candidates = {text: functools.partial(_run_all, run, batches) for text, run in runs.items()}
    for candidate in candidates.values():
        candidate()
    seconds = interleave(candidates, rounds)
    all_updates, one_update = (
        np.array(seconds[text]) / len(batches) / depths.shape[1] * 1e6
        for text in (ALL_UPDATES, ONE_UPDATE)
    )
    update = (all_updates - one_update) / max(limit - 1, 1)
    ideal = limit / float(depths.mean())
    return {
        "batches": len(batches),
        "max_unroll": limit,
        "mean_depth": float(depths.mean()),
        "depths_unlike_keras": float((depths != expected).mean()),
        "ideal_speedup": ideal,
        "share_of_ideal": speedup(seconds[ALL_UPDATES], seconds[ONNX]) / ideal,
        "update_us": float(np.median(update)),
        "fixed_us": float(np.median(one_update - update)),
        "seconds": seconds,
    }


def _run_all(run: Callable, batches: Sequence[np.ndarray]) -> None:
    for batch in batches:
        run(batch)


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
        lines.append([*line, f"{ratio:.2f}", of_ideal, block])
    return lines


app = make_command_app(onnx_inference)

if __name__ == "__main__":
    app()
