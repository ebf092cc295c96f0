"""Predictions by Keras and by ONNX Runtime: `python -m benchmarks.onnx_inference`."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import keras

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import numpy as np
import typer

from benchmarks.measured_tables import show
from export.classifier import OnnxClassifier
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.zoo.index import read_index, verified_file

from .timing import describe_machine, interleave, speedup


def onnx_inference(
    name: Annotated[str, typer.Argument(help="Name of a model in the zoo with a threshold.")],
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size", help="Images in a batch, repeatable.", show_default="1 and 64"
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Number of test images in a run.")] = 64,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 7,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time `predict_on_batch` in Keras and the ONNX file, with and without a threshold.

    Both return logits, depth and status. The ideal speed-up of stopping early is K/d, for at most K
    updates of a block and a mean depth d.
    """
    folder = Path(zoo)
    model = ki.with_depth(ki.load_pretrained(name, folder))
    entry = read_index(folder)["models"][name]
    if entry["depth"] is None:
        raise typer.BadParameter(f"{name} must have a threshold")
    path = verified_file(folder, name, entry, f"/{name}.onnx")
    # As by default in ONNX Runtime, and as Keras, on all cores.
    cores = len(os.sched_getaffinity(0))
    classifier = OnnxClassifier(path, threads=cores, spin=True)
    data = datasets.load(entry["dataset"])
    raw = data.test.images[:images].astype(np.float32)
    scaled = (raw - np.float32(entry["mean"])) / np.float32(entry["std"])
    lines: list[list[str]] = []
    rows: list[dict] = []
    for size in batch_sizes or [1, 64]:
        parts = [slice(begin, begin + size) for begin in range(0, images, size)]
        candidates = {
            "Keras": functools.partial(_predict, model, [scaled[p] for p in parts]),
            "ONNX Runtime": functools.partial(_classify, classifier, [raw[p] for p in parts], None),
            "ONNX Runtime, none stops": functools.partial(
                _classify, classifier, [raw[p] for p in parts], 0.0
            ),
        }
        for run in candidates.values():
            run()
        seconds = interleave(candidates, rounds)
        depth = float(classifier.classify(raw).depth.mean())
        ideal = entry["depth"]["max_unroll"] / depth
        for candidate, runs in seconds.items():
            ratio = speedup(seconds["Keras"], runs)
            gain = speedup(seconds["ONNX Runtime, none stops"], runs)
            rows.append({"batch_size": size, "candidate": candidate, "seconds": runs})
            rows[-1].update(depth=depth, speedup_to_keras=ratio, speedup_to_none=gain)
            milliseconds = np.median(runs) * 1e3 / len(parts)
            is_adaptive = candidate == "ONNX Runtime"
            share = f"{gain / ideal:.0%} of {ideal:.2f}" if is_adaptive else "-"
            lines.append([str(size), candidate, f"{milliseconds:.1f}", f"{ratio:.2f}", share])
    header = ["batch", "candidate", "ms per batch", "speed-up over Keras", "share of K/d"]
    show(
        f"Predictions of {name}, {images} test images; {describe_machine()}",
        header,
        lines,
        {"machine": describe_machine(), "rows": rows},
        output,
    )


def _predict(model: keras.Model, batches: Sequence[Any]) -> None:
    for batch in batches:
        model.predict_on_batch(batch)


def _classify(
    classifier: OnnxClassifier, batches: Sequence[np.ndarray], threshold: float | None
) -> None:
    for batch in batches:
        classifier.classify(batch, threshold=threshold)


app = make_command_app(onnx_inference)

if __name__ == "__main__":
    app()
