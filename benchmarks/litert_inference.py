"""Predictions by Keras, ONNX Runtime and LiteRT: `python -m benchmarks.litert_inference`."""

import functools
import tempfile
import time
from collections.abc import Callable, Sequence
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
from keras_iterconv._support.private_keras import mask_of
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.exporting.exported_function import ExportedFunction
from keras_iterconv.exporting.litert import convert_function, run_masked
from keras_iterconv.unrolling import Unrolled, unroll_adaptive
from keras_iterconv.zoo.index import read_index

from .timing import describe_machine, interleave, speedup

THREADS = (1, 2)


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
    """Time a net of adaptive depth in Keras, ONNX Runtime and LiteRT.

    The LiteRT files have two forms of the loop of a block: in "all samples" the stopped samples
    stay in the batch and all shapes are constant, in "active samples" they are removed from it.
    The time of the processor is the sum over its cores; other programs change it less.
    """
    if name is None:
        model, inputs = _random_net(side, blocks, threshold, images)
    else:
        model, inputs = _trained_net(name, Path(zoo), images)
    with_depth = ki.with_depth(model)
    depth = with_depth.predict_on_batch(inputs)["depth"]
    lines: list[list[str]] = []
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        runners = {"Keras": with_depth.predict_on_batch, **_runners(model, Path(folder))}
        for size in batch_sizes or [1, 64]:
            batches = [inputs[begin : begin + size] for begin in range(0, images, size)]
            for runner in runners.values():
                found = [runner(batch)["depth"] for batch in batches]
                np.testing.assert_array_equal(np.concatenate(found), depth)
            processor: dict[str, list[float]] = {text: [] for text in runners}
            candidates = {
                text: functools.partial(_run, runner, batches, processor[text])
                for text, runner in runners.items()
            }
            timed = interleave(candidates, rounds)
            for text, seconds in timed.items():
                ratio = speedup(timed["Keras"], seconds)
                row = {"batch_size": size, "candidate": text, "seconds": seconds}
                rows.append({**row, "processor_seconds": processor[text], "speedup": ratio})
                wall, busy = (np.median(t) * 1e3 / len(batches) for t in (seconds, processor[text]))
                lines.append([text, str(size), f"{wall:.1f}", f"{busy:.1f}", f"{ratio:.2f}"])
    facts = {"machine": describe_machine(), "mean_depth": float(depth.mean())}
    title = f"{model.name} of {inputs.shape[1:]}, mean depth {depth.mean():.2f}"
    header = ["candidate", "batch", "ms per batch", "ms of processor", "speed-up over Keras"]
    show(f"{title}; {describe_machine()}", header, lines, {**facts, "rows": rows}, output)


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


def _runners(model: keras.Model, folder: Path) -> dict[str, Callable]:
    """Return functions from a batch to the outputs of the files, by a runtime and its threads."""
    # Imported here, so that the command shows its help without them.
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    runners: dict[str, Callable] = {}
    ki.export_onnx(model, folder / "net.onnx")
    for threads in THREADS:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(folder / "net.onnx", options)
        runners[f"ONNX Runtime, threads {threads}"] = functools.partial(_run_onnx, session)
    for text, loop in LOOPS.items():
        content = convert_function(ExportedFunction(model), loop)
        for threads in THREADS:
            interpreter = Interpreter(model_content=content, num_threads=threads)
            runner = interpreter.get_signature_runner("serving_default")
            # The runner does not keep its interpreter alive.
            keep = functools.partial(_run_litert, interpreter, runner)
            runners[f"LiteRT, {text}, threads {threads}"] = keep
    return runners


def _run_onnx(session: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
    names = [part.name for part in session.get_outputs()]
    feeds = {session.get_inputs()[0].name: batch}
    return dict(zip(names, session.run(names, feeds), strict=True))


def _run_litert(interpreter: Any, runner: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
    (name,) = runner.get_input_details()
    return runner(**{name: batch})


def _run(runner: Callable, batches: Sequence[np.ndarray], processor: list[float]) -> None:
    busy = time.process_time()
    for batch in batches:
        runner(batch)
    processor.append(time.process_time() - busy)


app = make_command_app(litert_inference)

if __name__ == "__main__":
    app()
