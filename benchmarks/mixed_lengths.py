"""Sequences of mixed lengths in one batch: `python -m benchmarks.mixed_lengths`."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv.datasets.prefix_sums import draw_prefix_sums
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.models.deep_thinking_net import PADDING
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS

from .timing import describe_machine, interleave, speedup

NET = "deep_thinking_prefix_sums"
ADAPTIVE, FIXED = "adaptive", "largest depth for all"
# No update of these sequences has a smaller norm.
NO_STOP = 1e-30


def mixed_lengths(
    file: Annotated[
        str | None,
        typer.Argument(help="A .keras file of a trained deep_thinking.  [default: the zoo's]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Number of sequences.")] = 64,
    lengths: Annotated[str, typer.Option(help="Lengths, an equal share each.")] = "12,24,48,96",
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 11,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time a batch of padded sequences that stop by themselves, in Keras and in ONNX Runtime.

    Beside it, the same loop without stopping makes as many updates of all sequences as the deepest
    one needs. The ideal ratio of the times is the mean depth over the largest.
    """
    model: Any = ki.load_pretrained(NET) if file is None else keras.models.load_model(file)
    scale = model.preprocessing
    bits = [int(text) for text in lengths.split(",")]
    images, ends = padded_sequences(batch_size, bits, scale)
    expected = ki.with_depth(model)(images)
    depth = expected["depth"].numpy().ravel()
    largest, wrong = int(depth.max()), _differences(model, images, ends, expected)
    candidates = {
        "Keras": _keras(model, images, largest),
        "ONNX Runtime": _onnx(model, images, largest, depth),
    }
    ideal, lines = depth.mean() / largest, []
    content: dict[str, Any] = {"machine": describe_machine(), "depth": depth.tolist()}
    for runtime, runs in candidates.items():
        seconds = interleave(runs, rounds)
        ratio = 1 / speedup(seconds[FIXED], seconds[ADAPTIVE])
        content[runtime] = {"seconds": seconds, "ratio": ratio}
        medians = (f"{np.median(seconds[each]) * 1e3:.0f}" for each in runs)
        lines.append([runtime, *medians, f"{ratio:.2f}", f"{ideal:.2f}", f"{ideal / ratio:.2f}"])
    title = (
        f"{batch_size} sequences of {lengths} bits, {depth.min()} to {largest} updates, mean "
        f"{depth.mean():.1f}; {wrong} differ from the sequence alone; {describe_machine()}"
    )
    header = ["runtime", f"{ADAPTIVE}, ms", f"{FIXED}, ms", "ratio", "ideal", "ideal to ratio"]
    show(title, header, lines, content, output)


def padded_sequences(
    count: int, bits: list[int], scale: Preprocessing
) -> tuple[np.ndarray, np.ndarray]:
    """Return padded sequences as the net gets them, and their lengths."""
    rng = np.random.default_rng(0)
    ends = np.resize(bits, count)
    images = np.full((count, max(bits), 1, 1), PADDING, np.float32)
    for n, end in enumerate(ends):
        images[n, :end] = scale(draw_prefix_sums(1, end, rng)[0][0])
    return images, ends


def _differences(model: Any, images: np.ndarray, ends: np.ndarray, together: dict) -> int:
    """Return the number of sequences that are answered otherwise than alone."""
    run, count = ki.with_depth(model), 0
    for n, end in enumerate(ends):
        alone = run(images[n : n + 1, :end])
        same = np.array_equal(
            np.argmax(alone["outputs"][0], -1), np.argmax(together["outputs"][n, :end], -1)
        )
        count += not same or int(alone["depth"][0, 0]) != int(together["depth"][n, 0])
    return count


def _keras(model: Any, images: np.ndarray, largest: int) -> dict[str, Callable]:
    """Return functions that run the adaptive net, and the same loop in which no sample stops."""
    pixels, (block,) = tf.constant(images), ki.iterated_blocks(model)
    own = {"threshold": block.threshold, "max_unroll": block.max_unroll}
    run = tf.function(ki.with_depth(model))
    run(pixels)

    def run_at(**settings):
        # Read as the graph runs, which is traced once.
        for name, value in settings.items():
            setattr(block, name, value)
        run(pixels)["depth"].numpy()

    return {
        ADAPTIVE: partial(run_at, **own),
        FIXED: partial(run_at, threshold=NO_STOP, max_unroll=largest),
    }


def _onnx(model: Any, images: np.ndarray, largest: int, depth: np.ndarray) -> dict[str, Callable]:
    """Return the same in ONNX Runtime."""
    unscaled = Preprocessing((0.0,), (1.0,))
    converted = to_onnx(fold(model), unscaled, {}, TASKS["labels_per_position"])
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = {
        ADAPTIVE: {},
        FIXED: {
            "threshold": np.array(NO_STOP, np.float32),
            "max_unroll": np.array(largest, np.int32),
        },
    }
    (found,) = session.run(["depth"], {"image": images})
    np.testing.assert_array_equal(found.ravel(), depth)
    return {name: partial(_answer, session, images, options) for name, options in given.items()}


def _answer(session: Any, images: np.ndarray, options: dict) -> None:
    session.run(["logits", "depth"], {"image": images, **options})


app = make_command_app(mixed_lengths)

if __name__ == "__main__":
    app()
