"""The nets of the demonstration: their files, and what its page says of them."""

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

import keras_iterconv as ki
from keras_iterconv.datasets import load_published_data
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.tasks import TASKS

from .data_source import task_name
from .demo_graph import with_norms
from .onnx_session import open_session
from .preparation import PREPARATIONS


class DigitNet(NamedTuple):
    """A net of the zoo that classifies digits.

    Attributes:
        title: What the page calls it.
        lowest: Smallest threshold of the page's slider.
        highest: Largest threshold.
    """

    title: str
    lowest: float
    highest: float


# Below the smallest threshold of the first all images run to the limit, above the largest all stop
# after one update; the second has few updates to lose (measured).
DIGIT_NETS = {
    "nais_mnist_adaptive": DigitNet("One block, 28x28 pixels", 0.1, 10),
    "nais_adaptive_digits": DigitNet("54 blocks, 8x8 pixels", 1e-6, 100),
}
SEQUENCE_NET = "deep_thinking_prefix_sums"
# Number of thresholds of the slider beside the net's own one.
STEPS = 24
IMAGES_PER_CLASS = 2
_BATCH = 64


class NetFiles(NamedTuple):
    """A net of the demonstration.

    Attributes:
        facts: What the page says of it, as JSON.
        content: Its ONNX file.
    """

    facts: dict[str, Any]
    content: bytes


def convert(zoo: Path, name: str, entry: dict[str, Any]) -> onnx.ModelProto:
    """Return a net of the zoo as an ONNX model whose depth must be given.

    Raises:
        ValueError: The zoo has no such net.
        ZooError: The net's file differs from the index.
    """
    model = ki.load_pretrained(name, zoo)
    task = TASKS[task_name(entry["dataset"])]
    return to_onnx(fold(model), model.preprocessing, {"model": name}, task, "required")


def make_sequence_net(zoo: Path, entry: dict[str, Any]) -> NetFiles:
    """Return the net that adds up bits."""
    model = convert(zoo, SEQUENCE_NET, entry)
    return NetFiles(_facts(SEQUENCE_NET, entry), model.SerializeToString())


def make_digit_net(
    zoo: Path, name: str, entry: dict[str, Any], say: Callable[[str], None]
) -> NetFiles:
    """Return a net that classifies digits, with test images and a table of thresholds.

    Args:
        zoo: The zoo's folder.
        name: The net, of `DIGIT_NETS`.
        entry: Its entry in the index.
        say: A function that tells the user what is done.

    Raises:
        DatasetError: The net's data set is not on this machine.
    """
    data = load_published_data(entry).test
    images = np.asarray(data.images)
    say(f"{name}: converting to ONNX")
    model = convert(zoo, name, entry)
    say(f"{name}: measuring {STEPS + 1} thresholds on {len(data.labels):,} test images")
    table = _measure(model, name, entry, images, data.labels)
    facts = _facts(name, entry) | {
        "title": DIGIT_NETS[name].title,
        "preparation": PREPARATIONS[entry["dataset"]]._asdict(),
        "thresholds": table,
        "test_images": len(data.labels),
        "images": _choose_images(images, data.labels),
    }
    return NetFiles(facts, with_norms(model).SerializeToString())


def _facts(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "file": f"{name}.onnx",
        "input_shape": entry["input_shape"],
        "scale": entry["scale"],
        "classes": entry["classes"],
        **entry["depth"],
        "accuracy": entry["result"]["test_accuracy"],
    }


def thresholds_of(name: str, own: float) -> list[float]:
    """Return the thresholds of the slider in ascending order, with the net's own one."""
    _, lowest, highest = DIGIT_NETS[name]
    spread = (float(f"{value:.2g}") for value in np.geomspace(lowest, highest, STEPS))
    return sorted({*spread, own})


def _measure(
    model: onnx.ModelProto, name: str, entry: dict[str, Any], images: np.ndarray, labels: np.ndarray
) -> list[dict[str, float]]:
    """Return accuracy and mean number of updates by threshold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(model, path)
        session, _ = open_session(str(path))
    max_unroll = np.array(entry["depth"]["max_unroll"], np.int32)
    table = []
    for threshold in thresholds_of(name, entry["depth"]["threshold"]):
        depth = {"threshold": np.array(threshold, np.float32), "max_unroll": max_unroll}
        right, updates = 0, 0
        for start in range(0, len(labels), _BATCH):
            batch = images[start : start + _BATCH].astype(np.float32)
            logits, made = session.run(["logits", "depth"], {"image": batch, **depth})
            right += int(np.sum(logits.argmax(axis=1) == labels[start : start + _BATCH]))
            updates += int(made.sum())
        counts = {"accuracy": right / len(labels), "updates": updates / len(labels)}
        table.append({"threshold": threshold, **counts})
    return table


def _choose_images(images: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Return the first test images of each class, their pixels in base64."""
    chosen = []
    for label in range(int(labels.max()) + 1):
        for place in np.flatnonzero(labels == label)[:IMAGES_PER_CLASS]:
            pixels = np.asarray(images[place])
            if not np.array_equal(pixels, pixels.astype(np.uint8)):
                raise ValueError("test images of the demonstration must have whole pixel values")
            text = base64.b64encode(pixels.astype(np.uint8).tobytes()).decode("ascii")
            chosen.append({"label": label, "pixels": text})
    return chosen
