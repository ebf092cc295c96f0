"""Whether what is published is what it says it is."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
from iterconv.training.datasets import DatasetError, ImageData, load_dataset
from rich.console import Console
from rich.table import Table

from keras_iterconv import load_pretrained, set_depth, with_depth
from keras_iterconv.answers import wrong_answers
from keras_iterconv.models.pretrained import ZooError, find_zoo, read_index, verified_path

from .classifier import Answers, OnnxClassifier
from .inference import Depth
from .saved_model import DEPTH_SIGNATURE, SIGNATURE
from .zoo import check_index

# Logits relative to the largest of a picture; the share of image-blocks of equal depth; accuracy.
LOGITS_TOLERANCE = 1e-4
DEPTH_SHARE = 0.999
ACCURACY_TOLERANCE = 0.001
BATCHES = (1, 7, 64)
ACCURACY_BATCH = 500


def check_zoo(zoo: Path, console: Console) -> bool:
    """Verify each model of a zoo, and show what was found.

    For each: the files' hashes, the ONNX checker, and on real test images, where the data set is
    there, the parity of Keras, SavedModel and ONNX at batches of 1, 7 and 64, also with another
    depth, and the test accuracy through ONNX Runtime.

    Returns:
        Whether all is as the index says.

    Raises:
        ZooError: There is no index, or it is not as its schema wants it.
    """
    folder = find_zoo(zoo)
    index = read_index(folder)
    check_index(index, folder)
    table = Table(title=f"Models of {zoo}", title_justify="left")
    table.add_column("model", no_wrap=True)
    table.add_column("files")
    table.add_column("logits, relative", justify="right")
    table.add_column("equal depths", justify="right")
    table.add_column("test accuracy", justify="right")
    table.add_column("found")
    good = True
    for name, entry in index["models"].items():
        try:
            cells = _check_model(folder, name, entry)
            found = "good"
        except ZooError as error:
            cells, found, good = ("-",) * 4, str(error), False
        table.add_row(name, *cells, found)
    console.print(table, highlight=False)
    return good


def _check_model(folder: Path, name: str, entry: dict) -> tuple[str, ...]:
    total = _check_files(folder, name, entry)
    model = load_pretrained(name, folder)
    paths = [folder / file for file in entry["files"]]
    (onnx_path,) = [path for path in paths if path.suffix == ".onnx"] or [None]
    if onnx_path is None:
        return f"{total / 1e6:.1f} MB", "-", "-", "-"
    onnx.checker.check_model(onnx.load(onnx_path), full_check=True)
    saved = [path.parent for path in paths if path.name == "saved_model.pb"]
    try:
        data = load_dataset(entry["dataset"])
    except DatasetError:
        return f"{total / 1e6:.1f} MB", "-", "-", "no data"
    classifier = OnnxClassifier(onnx_path)
    worst, share = compare(model, saved, classifier, entry, data)
    if worst > LOGITS_TOLERANCE or share < DEPTH_SHARE:
        raise ZooError(
            f"{name}: Keras, SavedModel and ONNX differ by {worst:.1e} in logits; "
            f"{share:.3%} of the depths are equal"
        )
    accuracy = onnx_accuracy(classifier, data)
    claimed = entry["result"]["test_accuracy"]
    if abs(accuracy - claimed) > ACCURACY_TOLERANCE:
        raise ZooError(f"{name}: {accuracy:.2%} of the test images are right, not {claimed:.2%}")
    return f"{total / 1e6:.1f} MB", f"{worst:.1e}", f"{share:.3%}", f"{accuracy:.2%}"


def _check_files(folder: Path, name: str, entry: dict) -> int:
    """Verify the files' hashes, and return their bytes."""
    for file, facts in entry["files"].items():
        verified_path(folder, name, file, facts)
    return sum(facts["bytes"] for facts in entry["files"].values())


def compare(
    model: keras.Model,
    saved: Iterable[Path],
    classifier: OnnxClassifier,
    entry: dict,
    data: ImageData,
) -> tuple[float, float]:
    """Compare Keras and SavedModels with ONNX on test images.

    Returns:
        The largest difference of logits, relative to the largest logit of the image, and the
        smallest share of equal depths.

    Raises:
        ZooError: A status differs, or a depth by more than one.
    """
    mean, std = np.float32(entry["mean"]), np.float32(entry["std"])
    runs = [tf.saved_model.load(path) for path in saved]
    worst, shares = 0.0, []
    depths = [None]
    if entry["depth"] is not None:
        own = Depth(**entry["depth"])
        depths.append(Depth(own.threshold * 10, max(1, own.max_unroll // 2)))
    for depth in depths:
        if depth is not None:
            set_depth(model, **depth._asdict())
        view = with_depth(model)
        for batch in BATCHES:
            images = data.test.images[:batch].astype(np.float32)
            ours = classifier.classify(images, *(depth or ()))
            others = [_serve(run, images, depth) for run in runs]
            others.append(view((images - mean) / std))
            for other in others:
                difference, share = _difference(ours, other, classifier.metadata["model"])
                worst = max(worst, difference)
                shares.append(share)
    return worst, min(shares)


def _serve(run, images: np.ndarray, depth: Depth | None) -> dict[str, tf.Tensor]:
    """Return the outputs of a SavedModel."""
    image = tf.constant(images)
    if depth is None:
        return run.signatures[SIGNATURE](image=image)
    return run.signatures[DEPTH_SIGNATURE](
        image=image,
        threshold=tf.constant(depth.threshold, tf.float32),
        max_unroll=tf.constant(depth.max_unroll, tf.int32),
    )


def _difference(ours: Answers, other: dict[str, tf.Tensor], name: str) -> tuple[float, float]:
    """Return the largest relative difference of logits, and the share of equal depths."""
    expected = {key: value.numpy() for key, value in other.items()}
    apart = np.abs(ours.depth - expected["depth"])
    if (ours.status != expected["status"]).any() or apart.max() > 1:
        raise ZooError(
            f"{name}: the formats differ in {(ours.status != expected['status']).sum()} statuses, "
            f"and in depth by up to {apart.max()} updates"
        )
    largest = np.abs(expected["logits"]).max(axis=1, keepdims=True)
    difference = np.abs(ours.logits - expected["logits"]) / np.maximum(largest, 1e-30)
    return float(difference.max()), float((apart == 0).mean())


def onnx_accuracy(classifier: OnnxClassifier, data: ImageData) -> float:
    """Return the share of the test images that ONNX Runtime gets right."""
    right = 0
    for begin in range(0, len(data.test), ACCURACY_BATCH):
        labels = data.test.labels[begin : begin + ACCURACY_BATCH]
        logits = classifier.classify(data.test.images[begin : begin + ACCURACY_BATCH]).logits
        right += int(np.sum(~wrong_answers(logits, labels)))
    return right / len(data.test)
