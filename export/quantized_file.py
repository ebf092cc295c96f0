"""The ONNX file with weights of 8 bits beside a published one: its making, and its facts."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from iterconv.command_errors import as_user_error
from keras_iterconv.datasets import ImageData
from keras_iterconv.exporting.exported_function import THRESHOLD
from keras_iterconv.exporting.int8_model import quantize
from keras_iterconv.exporting.onnx_graph import count_operators
from keras_iterconv.zoo.index import ZooError

from .classifier import OnnxClassifier
from .measured_predictions import measure

# What `--quantize` takes; also the key of the facts in a model's entry in the index.
INT8 = "int8"
# Number of training images that set the thresholds; most of their pixels, which are in memory.
IMAGES = 512
PIXELS = 2**24
BATCH = 64
# What a file should reach: largest share of the float32 file's size, largest loss of accuracy,
# largest difference of the mean updates as a share of the float32 file's.
SIZE, ACCURACY_LOSS, UPDATES = 0.35, 0.005, 0.1


def int8_name(name: str) -> str:
    """Return the name of a model's file."""
    return f"{name}_{INT8}.onnx"


def write_int8(converted: onnx.ModelProto, path: Path, data: ImageData) -> dict[str, Any]:
    """Write the file of a model, and return its facts for the index.

    Args:
        converted: The float32 model.
        path: The file to write.
        data: The data set of the run. The first training images set the thresholds, the test
            images give accuracy and updates.
    """
    height, width, _ = data.input_shape
    count = min(IMAGES, max(PIXELS // (height * width), 1))
    images = data.train.images[:count].astype(np.float32)
    batches = [images[begin : begin + BATCH] for begin in range(0, len(images), BATCH)]
    quantized, report = as_user_error(quantize, converted, batches)
    onnx.save(quantized, path)
    classifier = OnnxClassifier(path)
    found = measure(lambda images, depth: classifier.classify(images), data)
    return {
        "size": report.size,
        "test_accuracy": found.accuracy,
        "mean_depth": found.mean_updates,
        "threshold": report.thresholds.get(THRESHOLD),
        "operators": count_operators(quantized),
    }


def describe_int8(entry: dict[str, Any]) -> str:
    """Return a sentence about the file of an entry, with what it misses."""
    facts, result, depth = entry[INT8], entry["result"], entry["depth"]
    text = (
        f"{facts['size']:.1%} of the size of the float32 file; test accuracy "
        f"{facts['test_accuracy']:.2%} instead of {result['test_accuracy']:.2%}; "
        f"{facts['mean_depth']:.1f} updates per image instead of {result['mean_depth']:.1f}"
    )
    if depth is not None:
        text += f"; stopping threshold {facts['threshold']:g} instead of {depth['threshold']:g}"
    missed = {
        f"a size of {SIZE:.0%}": facts["size"] > SIZE,
        f"a loss of accuracy of {100 * ACCURACY_LOSS:g} points": (
            result["test_accuracy"] - facts["test_accuracy"] > ACCURACY_LOSS
        ),
        f"a difference of updates of {UPDATES:.0%}": (
            abs(facts["mean_depth"] - result["mean_depth"]) > UPDATES * result["mean_depth"]
        ),
    }
    bad = [goal for goal, is_missed in missed.items() if is_missed]
    return f"{text}. It exceeds {' and '.join(bad)}" if bad else text


def expect_int8(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with the facts of the file in place of those of the float32 file.

    Raises:
        ZooError: The index has no facts of the file.
    """
    if INT8 not in entry:
        raise ZooError(f"{name}: the index must have the facts of {int8_name(name)}; it has none")
    facts, depth = entry[INT8], entry["depth"]
    return {
        **entry,
        "operators": facts["operators"],
        "depth": None if depth is None else {**depth, THRESHOLD: facts["threshold"]},
    }
