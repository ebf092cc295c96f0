"""Files with weights of 8 bits against float32: `python -m benchmarks.int8_files NAME`."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import numpy as np
import onnxruntime.quantization
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from benchmarks.onnx_candidate import provider
from export.classifier import OnnxClassifier, Predictions
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.zoo.index import read_index, verified_file

CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 64
BATCH = 256


def int8_files(
    names: Annotated[list[str], typer.Argument(help="Names of models in the zoo.")],
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    images: Annotated[int, typer.Option(help="Number of test images.")] = 10_000,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic", help="Also the dynamic quantisation of ONNX Runtime's own tool, twice."
        ),
    ] = False,
    rounds: RoundsOption = 9,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Compare size, accuracy, updates and time of float32 files and their quantised copies.

    Times are medians of a batch of 1 and of 64 test images. The last column is the share of images
    with the same depth alone as in a batch of 64, in each block.
    """
    folder = Path(zoo)
    lines: list[list[str]] = []
    rows: list[dict[str, Any]] = []
    for name in names:
        entry = read_index(folder)["models"][name]
        data = datasets.load(entry["dataset"])
        with tempfile.TemporaryDirectory() as place:
            path = verified_file(folder, name, entry, f"/{name}.onnx")
            calibration = data.train.images[:CALIBRATION_IMAGES].astype(np.float32)
            files = _make_files(path, Path(place), calibration, dynamic)
            for row in _compare(files, data, images, rounds, device):
                rows.append({"model": name, **row})
                lines.append([name, *_cells(row)])
    header = ["model", "file", "size", "accuracy", "updates", "ms, 1", "ms, 64", "alone"]
    show(f"Quantised files, up to {images} test images", header, lines, {"rows": rows}, output)


def _make_files(path: Path, place: Path, images: np.ndarray, dynamic: bool) -> dict[str, Path]:
    """Return the paths of a file and of its quantised copies, by what they are called."""
    paths = {"float32": path, "int8": place / "int8.onnx"}
    ki.quantize_onnx(path, paths["int8"], np.split(images, len(images) // CALIBRATION_BATCH))
    if dynamic:
        for kind, inside in (("dynamic", True), ("dynamic, not in loops", False)):
            paths[kind] = place / f"{len(paths)}.onnx"
            onnxruntime.quantization.quantize_dynamic(
                path, paths[kind], extra_options={"EnableSubgraph": inside}
            )
    return paths


def _compare(
    files: dict[str, Path], data: datasets.ImageData, images: int, rounds: int, device: str
) -> list[dict[str, Any]]:
    """Return a row for each file."""
    classifiers = {kind: OnnxClassifier(path) for kind, path in files.items()}
    test, labels = data.test.images[:images].astype(np.float32), data.test.labels[:images]
    with Bench(device) as bench:
        times = {}
        for size in (1, 64):
            candidates = {
                kind: Candidate(
                    "benchmarks.int8_files:Classifier",
                    {"path": path, "images": test[:64]},
                    {"size": size},
                )
                for kind, path in files.items()
            }
            times[size] = bench.measure(candidates, rounds)
    rows = []
    for kind, each in classifiers.items():
        answers = _classify(each, test, BATCH)
        together, alone = (_classify(each, test[:64], size).depth for size in (64, 1))
        rows.append(
            {
                "file": kind,
                "size": files[kind].stat().st_size / files["float32"].stat().st_size,
                "accuracy": float(np.mean(~data.task.is_wrong(answers.logits, labels))),
                "updates": float(answers.depth.sum(axis=1).mean()),
                "seconds": {
                    size: [t * size / 64 for t in found.seconds[kind]]
                    for size, found in times.items()
                },
                "rounds": {size: found.rounds_facts() for size, found in times.items()},
                "alone": float(np.mean((together == alone).all(axis=1))),
            }
        )
    return rows


def _classify(classifier: OnnxClassifier, images: np.ndarray, size: int) -> Predictions:
    parts = [
        classifier.classify(images[begin : begin + size]) for begin in range(0, len(images), size)
    ]
    return Predictions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class Classifier:
    """Classifies images by a file.

    Args:
        path: The ONNX file.
        images: The images.
    """

    def __init__(self, path: Path, images: np.ndarray):
        self.classifier = OnnxClassifier(path, providers=[provider()])
        self.images = images

    def run(self, size: int) -> None:
        """Classify all images in batches of `size`."""
        _classify(self.classifier, self.images, size)


def _cells(row: dict[str, Any]) -> list[str]:
    times = (f"{np.median(row['seconds'][size]) * 1e3:.2f}" for size in (1, 64))
    return [
        row["file"],
        f"{row['size']:.1%}",
        f"{row['accuracy']:.2%}",
        f"{row['updates']:.1f}",
        *times,
        f"{row['alone']:.0%}",
    ]


app = make_command_app(int8_files)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.int8_files")
