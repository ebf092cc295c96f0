"""Sequences of mixed lengths in one batch: `python -m benchmarks.mixed_lengths`."""

from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from benchmarks.harness.process_settings import count_cores
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app
from keras_iterconv.datasets.prefix_sums import draw_prefix_sums
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.models.deep_thinking_net import PADDING
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS

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
    rounds: RoundsOption = 11,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time a batch of padded sequences that stop by themselves, in Keras and in ONNX Runtime.

    Beside it, the same loop without stopping makes as many updates of all sequences as the deepest
    one needs. The ideal ratio of the times is the mean depth over the largest.
    """
    bits = [int(text) for text in lengths.split(",")]
    net = Candidate(
        "benchmarks.mixed_lengths:KerasSequences",
        {"file": file, "batch_size": batch_size, "bits": bits},
    )
    lines: list[list[str]] = []
    content: dict[str, Any] = {}
    with Bench(device) as bench:
        depth, wrong = bench.ask(net, "depth"), bench.ask(net, "differences")
        largest, ideal = int(depth.max()), float(depth.mean() / depth.max())
        session = _session(bench, net)
        np.testing.assert_array_equal(bench.ask(session, "depth", size=batch_size).ravel(), depth)
        # The same graph, or the same session, at other settings: one process for both.
        unstopped = {
            "threshold": np.array(NO_STOP, np.float32),
            "max_unroll": np.array(largest, np.int32),
        }
        size = {"size": batch_size}
        for runtime, each, call in (("Keras", net, {}), ("ONNX Runtime", session, size)):
            candidates = {
                ADAPTIVE: each._replace(call=call),
                FIXED: each._replace(call={**call, **unstopped}),
            }
            measured = bench.measure(candidates, rounds)
            ratio = measured.speedup(ADAPTIVE, FIXED)
            content[runtime] = {**measured.facts(), "ratio": ratio._asdict()}
            medians = (f"{measured.median(name) * 1e3:.0f}" for name in candidates)
            ratios = [f"{ratio.median:.2f}", ratio.interval, f"{ideal:.2f}"]
            lines.append([runtime, *medians, *ratios, f"{ideal / ratio.median:.2f}"])
    title = (
        f"{batch_size} sequences of {lengths} bits, {depth.min()} to {largest} updates, mean "
        f"{depth.mean():.1f}; {wrong} differ from the sequence alone"
    )
    header = ["runtime", f"{ADAPTIVE}, ms", f"{FIXED}, ms", "ratio", "95% interval", "ideal"]
    content["depth"] = depth.tolist()
    show(title, [*header, "ideal to ratio"], lines, content, output)


def load_net(file: str | None) -> Any:
    """Return a trained net: that of a .keras file, or the zoo's."""
    return ki.load_pretrained(NET) if file is None else keras.models.load_model(file)


class KerasSequences:
    """A trained net with a batch of padded sequences.

    Args:
        file: A .keras file; None for the zoo's net.
        batch_size: Number of sequences.
        bits: Lengths, an equal share each.
    """

    def __init__(self, file: str | None, batch_size: int, bits: list[int]):
        self.model = load_net(file)
        self.images, self.ends = padded_sequences(batch_size, bits, self.model.preprocessing)
        (self.block,) = ki.iterated_blocks(self.model)
        self.own = {"threshold": self.block.threshold, "max_unroll": self.block.max_unroll}
        self.pixels = tf.constant(self.images)
        self.forward = tf.function(ki.with_depth(self.model))

    def run(self, **settings: Any) -> None:
        """Run the batch at other settings than the net's own."""
        # Read as the graph runs, which is traced once.
        for name, value in (self.own | settings).items():
            setattr(self.block, name, np.asarray(value).item())
        self.forward(self.pixels)["depth"].numpy()

    def depth(self) -> np.ndarray:
        """Return the depth of each sequence."""
        return self.forward(self.pixels)["depth"].numpy().ravel()

    def differences(self) -> int:
        """Return the number of sequences that are answered otherwise than alone."""
        return _differences(self.model, self.images, self.ends, self.forward(self.pixels))

    def exported(self) -> tuple[bytes, np.ndarray]:
        """Return the ONNX file, and its inputs."""
        unscaled = Preprocessing((0.0,), (1.0,))
        converted = to_onnx(fold(self.model), unscaled, {}, TASKS["labels_per_position"])
        return converted.SerializeToString(), self.images


def _session(bench: Bench, net: Candidate) -> Candidate:
    """Return the candidate that runs the file of the net in ONNX Runtime."""
    file, images = bench.ask(net, "exported")
    given = {"file": file, "inputs": images, "threads": count_cores()}
    return Candidate("benchmarks.onnx_candidate:OnnxSession", given)


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


app = make_command_app(mixed_lengths)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.mixed_lengths")
