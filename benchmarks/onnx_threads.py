"""Threads and spinning of ONNX Runtime: `python -m benchmarks.onnx_threads`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
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
from benchmarks.onnx_candidate import provider
from export.classifier import OnnxClassifier
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv.zoo.index import read_index, verified_file

# Settings of `OnnxClassifier`; without other threads none can spin.
SETTINGS: dict[str, dict[str, Any]] = {
    "1 thread": {"threads": 1},
    "2 threads": {"threads": 2},
    "2 threads that spin": {"threads": 2, "spin": True},
}
ONE = "1 thread"


def onnx_threads(
    names: Annotated[list[str], typer.Argument(help="Names of models in the zoo.")],
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    batch_sizes: BatchSizesOption = None,
    images: Annotated[int, typer.Option(help="Number of random images in a run.")] = 64,
    rounds: RoundsOption = 7,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
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
        shape = (images, *entry["input_shape"])
        net = {"path": path, "shape": shape, "scale": entry["scale"]}
        with Bench(device) as bench:
            for size in batch_sizes or [1, 64]:
                candidates = {
                    text: Candidate(
                        "benchmarks.onnx_threads:Classifier",
                        {**net, "settings": given},
                        {"size": size},
                    )
                    for text, given in SETTINGS.items()
                }
                measured = bench.measure(candidates, rounds)
                batches = -(-images // size)
                row = {"model": name, "batch_size": size, **measured.facts()}
                rows.append(row)
                for text in candidates:
                    ratio = measured.speedup(ONE, text)
                    seconds = measured.median(text), measured.median_of_processor(text)
                    times = [f"{each * 1e3 / batches:.2f}" for each in seconds]
                    cells = [name, str(size), text, *times]
                    lines.append([*cells, f"{ratio.median:.2f}", ratio.interval])
    header = ["model", "batch", "candidate", "ms per batch", "ms of processor", "speed-up"]
    show("Threads of ONNX Runtime", [*header, "95% interval"], lines, {"rows": rows}, output)


class Classifier:
    """Classifies random images.

    Args:
        path: The ONNX file.
        settings: Settings of `OnnxClassifier`.
        shape: Shape of the images.
        scale: Largest value of a pixel.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], shape: Sequence[int], scale: float):
        self.classifier = OnnxClassifier(path, **settings, providers=[provider()])
        values = np.random.default_rng(0).uniform(0, scale, shape)
        self.images = values.astype(np.float32)

    def run(self, size: int) -> None:
        """Classify all images in batches of `size`."""
        for begin in range(0, len(self.images), size):
            self.classifier.classify(self.images[begin : begin + size])


app = make_command_app(onnx_threads)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.onnx_threads")
