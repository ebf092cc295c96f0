"""Predictions by Keras, ONNX Runtime and LiteRT: `python -m benchmarks.litert_inference`."""

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
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv._support.private_keras import mask_of
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.exporting.exported_function import ExportedFunction
from keras_iterconv.exporting.litert import convert_function, run_masked
from keras_iterconv.unrolling import Unrolled, unroll_adaptive
from keras_iterconv.zoo.index import read_index

THREADS = (1, 2)
KERAS = "Keras"


def run_compacting(block: Any, inputs: Any, depth: DepthSettings) -> Unrolled:
    """Return the result of a block by the loop that removes stopped samples from the batch."""
    mask, state = mask_of(inputs), block.make_initial_state(inputs)
    update, rule = block.bind(state, inputs, mask)
    threshold = tf.convert_to_tensor(depth.threshold, tf.float32)
    limits = {"rule": rule, "min_unroll": block.min_unroll}
    unrolled = unroll_adaptive(update, state, depth.max_unroll, threshold, "recompute", **limits)
    return block.as_outputs(unrolled, mask)


LOOPS = {"all samples": run_masked, "active samples": run_compacting}


def litert_inference(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of a model in the zoo with a threshold.", show_default="random weights"
        ),
    ] = None,
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    side: Annotated[int, typer.Option(help="Size of random images without NAME.")] = 32,
    blocks: Annotated[int, typer.Option(help="Blocks in a stage without NAME.")] = 2,
    threshold: Annotated[float, typer.Option(help="Stopping threshold without NAME.")] = 3.0,
    batch_sizes: BatchSizesOption = None,
    images: Annotated[int, typer.Option(help="Number of images in a run.")] = 64,
    rounds: RoundsOption = 7,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time a net of adaptive depth in Keras, ONNX Runtime and LiteRT.

    The LiteRT files have two forms of the loop of a block: in "all samples" the stopped samples
    stay in the batch and all shapes are constant, in "active samples" they are removed from it.
    The time of the processor is the sum over its cores; other programs change it less.
    """
    random = {"side": side, "blocks": blocks, "threshold": threshold}
    net = {"name": name, "zoo": zoo, "images": images, **random}
    keras_net = Candidate("benchmarks.litert_inference:KerasNet", net)
    lines: list[list[str]] = []
    rows: list[dict] = []
    with Bench(device) as bench:
        candidates = {KERAS: keras_net, **_file_candidates(bench, keras_net)}
        title, depth = bench.ask(keras_net, "title"), bench.ask(keras_net, "depth", size=images)
        for size in batch_sizes or [1, 64]:
            for each in candidates.values():
                np.testing.assert_array_equal(bench.ask(each, "depth", size=size), depth)
            calls = {text: each._replace(call={"size": size}) for text, each in candidates.items()}
            measured = bench.measure(calls, rounds)
            rows.append({"batch_size": size, **measured.facts()})
            for text in candidates:
                ratio = measured.speedup(KERAS, text)
                seconds = measured.median(text), measured.median_of_processor(text)
                times = [f"{each * 1e3 * size / images:.1f}" for each in seconds]
                lines.append([text, str(size), *times, f"{ratio.median:.2f}", ratio.interval])
    header = ["candidate", "batch", "ms per batch", "ms of processor", "speed-up over Keras"]
    facts = {"mean_depth": float(depth.mean()), "rows": rows}
    title = f"{title}, mean depth {depth.mean():.2f}"
    show(title, [*header, "95% interval"], lines, facts, output)


class KerasNet:
    """A net of adaptive depth with its inputs, by `predict_on_batch`.

    Args:
        name: Name of a model in the zoo; None for random weights.
        zoo: Folder of the zoo.
        side: Size of random images.
        blocks: Blocks in a stage of random weights.
        threshold: Their stopping threshold.
        images: Number of images in a run.
    """

    def __init__(
        self, name: str | None, zoo: str, side: int, blocks: int, threshold: float, images: int
    ):
        if name is None:
            self.model, self.inputs = _random_net(side, blocks, threshold, images)
        else:
            self.model, self.inputs = _trained_net(name, Path(zoo), images)
        self.adaptive = ki.with_depth(self.model)

    def run(self, size: int) -> None:
        """Run all images in batches of `size`."""
        self.depth(size)

    def depth(self, size: int) -> np.ndarray:
        """Return the depth of each image in each block, `[N, blocks]`."""
        batches = (self.inputs[n : n + size] for n in range(0, len(self.inputs), size))
        return np.concatenate([self.adaptive.predict_on_batch(each)["depth"] for each in batches])

    def title(self) -> str:
        """Return the name and the shape of the inputs."""
        return f"{self.model.name} of {self.inputs.shape[1:]}"

    def exported(self) -> tuple[np.ndarray, bytes, dict[str, bytes]]:
        """Return the inputs, the ONNX file, and the LiteRT files by the form of their loops."""
        files = {
            text: convert_function(ExportedFunction(self.model), loop)
            for text, loop in LOOPS.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            ki.export_onnx(self.model, path)
            return self.inputs, path.read_bytes(), files


def _random_net(
    side: int, blocks: int, threshold: float, images: int
) -> tuple[keras.Model, np.ndarray]:
    keras.utils.set_random_seed(0)
    # Small steps, as a trained net has many updates to make.
    options = {"blocks": blocks, "threshold": threshold, "step_size": 0.2, "max_unroll": 20}
    model = ki.create_model("nais_adaptive", (side, side, 3), 10, **options)
    random = np.random.default_rng(0)
    # Of different scales, so that their depths differ.
    scales = np.exp(random.normal(size=(images, 1, 1, 1)))
    return model, (random.normal(size=(images, side, side, 3)) * scales).astype(np.float32)


def _trained_net(name: str, zoo: Path, images: int) -> tuple[keras.Model, np.ndarray]:
    entry = read_index(zoo)["models"][name]
    if entry["depth"] is None:
        raise typer.BadParameter(f"{name} must have a threshold")
    raw = datasets.load(entry["dataset"]).test.images[:images].astype(np.float32)
    scaled = (raw - np.float32(entry["mean"])) / np.float32(entry["std"])
    return ki.load_pretrained(name, zoo), scaled


def _file_candidates(bench: Bench, net: Candidate) -> dict[str, Candidate]:
    """Return the candidates that run the files of a net, by a runtime and its threads."""
    inputs, onnx, files = bench.ask(net, "exported")
    candidates = {}
    for threads in THREADS:
        given = {"file": onnx, "inputs": inputs, "threads": threads}
        target = "benchmarks.onnx_candidate:OnnxSession"
        candidates[f"ONNX Runtime, threads {threads}"] = Candidate(target, given)
    for text, content in files.items():
        for threads in THREADS:
            given = {"file": content, "inputs": inputs, "threads": threads}
            target = "benchmarks.litert_candidate:LiteRTSession"
            candidates[f"LiteRT, {text}, threads {threads}"] = Candidate(target, given)
    return candidates


app = make_command_app(litert_inference)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.litert_inference")
