"""Threads and spinning of ONNX Runtime: `python -m benchmarks.onnx_threads`."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness.measured_tables import show
from export.classifier import OnnxClassifier
from iterconv.command_help import make_command_app
from keras_iterconv.zoo.index import read_index, verified_file

from .timing import describe_machine, interleave, speedup

# Settings of `OnnxClassifier`; without other threads none can spin.
SETTINGS: dict[str, dict[str, Any]] = {
    "1 thread": {"threads": 1},
    "2 threads": {"threads": 2},
    "2 threads that spin": {"threads": 2, "spin": True},
}
# After this time threads without work sleep, so that those of one candidate do not slow the next.
SETTLE = 0.05


def onnx_threads(
    names: Annotated[list[str], typer.Argument(help="Names of models in the zoo.")],
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size", help="Images in a batch, repeatable.", show_default="1 and 64"
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Number of random images in a run.")] = 64,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 7,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time `OnnxClassifier.classify` with one and two threads, which sleep or spin.

    The time of the processor is the sum over its cores.
    """
    folder = Path(zoo)
    lines: list[list[str]] = []
    rows: list[dict] = []
    for name in names:
        entry = read_index(folder)["models"][name]
        path = verified_file(folder, name, entry, f"/{name}.onnx")
        candidates = {text: OnnxClassifier(path, **given) for text, given in SETTINGS.items()}
        shape = entry["input_shape"]
        values = np.random.default_rng(0).uniform(0, entry["scale"], (images, *shape))
        raw = values.astype(np.float32)
        for size in batch_sizes or [1, 64]:
            batches = [raw[begin : begin + size] for begin in range(0, images, size)]
            processor: dict[str, list[float]] = {text: [] for text in candidates}
            runs = {
                text: functools.partial(_classify, classifier, batches, processor[text])
                for text, classifier in candidates.items()
            }
            seconds = interleave(runs, rounds)
            for text, times in seconds.items():
                ratio = speedup(seconds["1 thread"], times)
                row = {"model": name, "batch_size": size, "candidate": text, "seconds": times}
                rows.append({**row, "processor_seconds": processor[text], "speedup": ratio})
                wall, busy = (np.median(t) * 1e3 / len(batches) for t in (times, processor[text]))
                lines.append([name, str(size), text, f"{wall:.2f}", f"{busy:.2f}", f"{ratio:.2f}"])
    header = ["model", "batch", "candidate", "ms per batch", "ms of processor", "speed-up"]
    content = {"machine": describe_machine(), "rows": rows}
    show(f"Threads of ONNX Runtime; {describe_machine()}", header, lines, content, output)


def _classify(
    classifier: OnnxClassifier, batches: Sequence[np.ndarray], processor: list[float]
) -> float:
    """Classify all batches after one that is not timed, and return the time."""
    time.sleep(SETTLE)
    classifier.classify(batches[0])
    busy, begin = time.process_time(), time.perf_counter()
    for batch in batches:
        classifier.classify(batch)
    seconds = time.perf_counter() - begin
    processor.append(time.process_time() - busy)
    return seconds


app = make_command_app(onnx_threads)

if __name__ == "__main__":
    app()
