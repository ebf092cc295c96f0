"""The verification of a zoo: its files match the index, and the formats agree with each other."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_iterconv import load_pretrained, set_depth, with_depth
from keras_iterconv._support.outputs import output_activation, output_key
from keras_iterconv.datasets import DatasetError, ImageData, load_published_data
from keras_iterconv.depth.block_calls import iterated_blocks
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.exporting.image_classifier import as_logits
from keras_iterconv.exporting.onnx_graph import all_tensors, count_operators
from keras_iterconv.exporting.saved_model import DEPTH_SIGNATURE, SIGNATURE
from keras_iterconv.zoo.index import (
    CHECKOUT_ZOO,
    ZooError,
    find_zoo,
    read_entry,
    read_index,
    verified_path,
)

from .classifier import OnnxClassifier, Predictions
from .measured_predictions import Measured, Predict, measure
from .quantized_file import INT8, expect_int8, int8_name
from .zoo_folder import unlisted_files

# Largest difference of logits, relative to the largest logit of the image; least share of
# (image, block) pairs of equal depth; largest difference of accuracy, and of the mean updates of an
# int8 file as a share of what the index says.
LOGITS_TOLERANCE = 1e-4
DEPTH_SHARE = 0.999
ACCURACY_TOLERANCE = 0.001
UPDATES_TOLERANCE = 0.01
BATCHES = (1, 7, 64)
# Most bytes of an ONNX file, a protocol buffer, and most characters of its metadata.
ONNX_LIMIT = 2**31 - 1
METADATA_LIMIT = 2**20
UNLISTED_SHOWN = 10
# Most characters of the message for one model: a file may hold a megabyte of class names.
MESSAGE_LIMIT = 500


class Agreement(NamedTuple):
    """The agreement of the formats on test images.

    Attributes:
        logits: The largest difference, relative to the largest logit of the image.
        depths: The share of (image, block) pairs of equal depth.
    """

    logits: float
    depths: float


def check_zoo(zoo: Path, console: Console, trust: bool = False) -> None:
    """Verify each model of a zoo, and print a table of the results.

    The verification of a model covers the files' sizes and hashes, the ONNX checker and the
    metadata of the ONNX file. If the data set is available, it also covers test images: the
    agreement of Keras, SavedModel and ONNX in batches of 1, 7 and 64, at the stored and at another
    depth, and the test accuracy. Of an int8 file, accuracy and updates are compared with the index.
    A SavedModel may read and write files, so it is run only in the checkout's own zoo or with
    `trust`.

    Args:
        zoo: The zoo's folder.
        console: The console for the table.
        trust: Whether SavedModels are run in a zoo that is not the checkout's own.

    Raises:
        ZooError: The index is invalid, or a model's files do not match it.
    """
    folder = find_zoo(zoo)
    index = read_index(folder)
    trusted = trust or folder.resolve() == CHECKOUT_ZOO.resolve()
    run = ".keras, ONNX and SavedModel files are" if trusted else ".keras and ONNX files are"
    left = "" if trusted else "; SavedModels, which may read and write any file, need --trust"
    console.print(f"First sizes and hashes are compared, then {run} run{left}.", soft_wrap=True)
    table = Table(title=Text(f"Models of {zoo}"), title_justify="left")
    table.add_column("model", no_wrap=True)
    table.add_column("files")
    table.add_column("logits, relative", justify="right")
    table.add_column("equal depths", justify="right")
    table.add_column("test accuracy", justify="right")
    table.add_column("result")
    bad = []
    say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    for name in index["models"]:
        try:
            cells = read_entry(folder, name, partial(_check_model, folder, name, trusted, say))
            found = "good"
        # A file with the right hash may still raise anything; the other models are checked too.
        except Exception as error:
            cells, found = ("-",) * 4, "bad"
            text = str(error) if isinstance(error, ZooError) else f"{name}: {error!r}"
            bad.append(" ".join(text.split())[:MESSAGE_LIMIT])
        table.add_row(name, *cells, found)
    console.print(table)
    _tell_unlisted(folder, console)
    if bad:
        raise ZooError("; ".join(bad))


def _tell_unlisted(folder: Path, console: Console) -> None:
    """Print the files of a zoo that its index does not list."""
    files = unlisted_files(folder)
    if files:
        # A name may hold control characters that move the terminal's cursor.
        shown = (file if file.isprintable() else ascii(file) for file in files[:UNLISTED_SHOWN])
        more = f" and {len(files) - UNLISTED_SHOWN} more" if len(files) > UNLISTED_SHOWN else ""
        console.print(f"Not in the index: {', '.join(shown)}{more}", soft_wrap=True)


def _check_model(
    folder: Path, name: str, trusted: bool, say: Callable[[str], None], entry: dict
) -> tuple[str, ...]:
    total = _check_files(folder, name, entry)
    model = load_pretrained(name, folder)
    paths = [folder / file for file in entry["files"]]
    runs: list[Predict] = []
    rounded: list[Predict] = []
    fixed: list[Predict] = []
    for path in paths:
        if path.name == int8_name(name):
            rounded.append(partial(_classify, _check_onnx(path, name, expect_int8(name, entry))))
        elif path.suffix == ".onnx":
            classifier = _check_onnx(path, name, entry)
            runs.append(partial(_classify, classifier))
            if not classifier.settable:
                fixed.append(runs[-1])
        if path.name == "saved_model.pb" and trusted:
            _check_complete(path.parent, name, paths)
            served = tf.saved_model.load(path.parent)
            runs.append(partial(_serve, served))
    size = f"{total / 1e6:.1f} MB"
    try:
        data = load_published_data(entry)
    except DatasetError as error:
        say(f"{name}: {error} Logits, depths and test accuracy are not checked.")
        return size, "-", "-", "no data"
    found = compare(model, runs, entry, data, fixed)
    # NaN fails both comparisons.
    if not (found.logits <= LOGITS_TOLERANCE and found.depths >= DEPTH_SHARE):
        raise ZooError(
            f"{name}: Keras, SavedModel and ONNX differ by {found.logits:.1e} in logits; "
            f"{found.depths:.3%} of the depths are equal"
        )
    measured = [measure(run, data) for run in runs]
    for each in measured:
        _check_accuracy(name, each, entry["result"])
    for run in rounded:
        _check_int8(int8_name(name), measure(run, data), entry[INT8])
    right = f"{measured[0].accuracy:.2%}" if runs else "-"
    return size, f"{found.logits:.1e}", f"{found.depths:.3%}", right


def _check_files(folder: Path, name: str, entry: dict) -> int:
    """Verify the files' sizes and hashes, and return their size in bytes."""
    for file, facts in entry["files"].items():
        verified_path(folder, name, file, facts)
    return sum(facts["bytes"] for facts in entry["files"].values())


def _check_complete(saved_model: Path, name: str, paths: Sequence[Path]) -> None:
    """Raise `ZooError` if a SavedModel has files that are not in the index: it may read them."""
    for file in sorted(saved_model.rglob("*")):
        if file not in paths and (file.is_symlink() or not file.is_dir()):
            raise ZooError(
                f"{name}: {str(file)!a} is not in the index, but the SavedModel may read it. "
                "Remove the file, or publish the model again"
            )


def _check_onnx(path: Path, name: str, entry: dict) -> OnnxClassifier:
    """Check an ONNX file, compare its metadata with the index, and return its classifier."""
    if path.stat().st_size > ONNX_LIMIT:
        raise ZooError(f"{name}: the ONNX file must have at most {ONNX_LIMIT:,} bytes")
    model = onnx.load(path, load_external_data=False)
    texts = sum(len(prop.key) + len(prop.value) for prop in model.metadata_props)
    if texts > METADATA_LIMIT:
        raise ZooError(
            f"{name}: the ONNX file has {texts:,} characters of metadata; it must have at most "
            f"{METADATA_LIMIT:,}"
        )
    if any(tensor.external_data for tensor in all_tensors(model)):
        raise ZooError(
            f"{name}: the ONNX file must hold all its weights, but reads some from other files"
        )
    onnx.checker.check_model(model, full_check=True)
    classifier = OnnxClassifier(path)
    metadata: dict[str, Any] = {
        "classes": list(classifier.classes),
        "scale": classifier.scale,
        # The index has the sizes of the data set's images, the model may leave some of them free.
        "input_shape": [
            listed if size is None else size
            for size, listed in zip(classifier.input_shape, entry["input_shape"], strict=True)
        ],
        "operators": count_operators(model),
        "depth": None,
    }
    if classifier.adaptive:
        metadata["depth"] = {key: getattr(classifier, key) for key in DepthSettings._fields}
        defaults = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for key, value in metadata["depth"].items():
            # Required inputs have no defaults.
            if key in defaults and defaults[key] != defaults[key].dtype.type(value):
                raise ZooError(
                    f"{name}: the ONNX file's metadata says {key} {value}, its default is "
                    f"{defaults[key]}"
                )
    for key, value in metadata.items():
        if value != entry[key]:
            raise ZooError(
                f"{name}: the ONNX file's {key} is {value}, that of the index {entry[key]}"
            )
    return classifier


def compare(
    model: keras.Model,
    runs: Sequence[Predict],
    entry: dict,
    data: ImageData,
    fixed: Sequence[Predict] = (),
) -> Agreement:
    """Return the agreement of other formats with Keras, at the stored depth and at another one.

    Args:
        model: The Keras model; its depth is set to the other depth.
        runs: The other formats: functions from raw images and a depth, None for the stored one, to
            logits, depth and status.
        entry: The model's entry in the index.
        data: The data set.
        fixed: Those of the functions that have the stored depth alone.

    Raises:
        ZooError: A status differs, or a depth differs by more than 1.
    """
    mean, std = np.float32(entry["mean"]), np.float32(entry["std"])
    activation = output_activation(model)
    depths: list[DepthSettings | None] = [None]
    if entry["depth"] is not None:
        stored = entry["depth"]
        norms = all(block.threshold_is_norm for block in iterated_blocks(model) if block.adjustable)
        # Ten times a probability or a count may be out of range.
        threshold = stored["threshold"] * (10 if norms else 1)
        depths.append(DepthSettings(max(1, stored["max_unroll"] // 2), threshold))
    differences, equal = [0.0], [True]
    for depth in depths:
        if depth is not None:
            set_depth(model, **depth._asdict())
        view = with_depth(model)
        for batch in BATCHES:
            images = data.test.images[:batch].astype(np.float32)
            outputs = view((images - mean) / std)
            expected = {key: outputs[key].numpy() for key in ("depth", "status")}
            expected["logits"] = as_logits(outputs[output_key(model)], activation).numpy()
            logits = np.abs(expected["logits"])
            largest = logits.max(axis=tuple(range(1, logits.ndim)), keepdims=True)
            for run in runs:
                if depth is not None and run in fixed:
                    continue
                found = run(images, depth)
                apart = np.abs(found.depth - expected["depth"])
                others = np.sum(found.status != expected["status"])
                if others or apart.max() > 1:
                    raise ZooError(
                        f"{entry['architecture']}: the formats differ in {others} statuses, and in "
                        f"depth by up to {apart.max()} updates"
                    )
                difference = np.abs(found.logits - expected["logits"])
                differences.append(np.max(difference / np.maximum(largest, 1e-30)))
                equal.extend((apart == 0).ravel())
    # NumPy's maximum, unlike Python's, is NaN if one of the numbers is NaN.
    return Agreement(float(np.max(differences)), float(np.mean(equal)))


def _classify(
    classifier: OnnxClassifier, images: np.ndarray, depth: DepthSettings | None
) -> Predictions:
    return classifier.classify(images, **(depth._asdict() if depth else {}))


def _serve(run: Any, images: np.ndarray, depth: DepthSettings | None) -> Predictions:
    """Return the predictions of a SavedModel."""
    image = tf.constant(images)
    if depth is None:
        outputs = run.signatures[SIGNATURE](image=image)
    else:
        outputs = run.signatures[DEPTH_SIGNATURE](
            image=image,
            threshold=tf.constant(depth.threshold, tf.float32),
            max_unroll=tf.constant(depth.max_unroll, tf.int32),
        )
    return Predictions(**{key: outputs[key].numpy() for key in Predictions._fields})


def _check_accuracy(name: str, found: Measured, claimed: dict) -> None:
    if not abs(found.accuracy - claimed["test_accuracy"]) <= ACCURACY_TOLERANCE:
        raise ZooError(
            f"{name}: the test accuracy must be {claimed['test_accuracy']:.2%}, but is "
            f"{found.accuracy:.2%}"
        )


def _check_int8(name: str, found: Measured, claimed: dict) -> None:
    """Compare accuracy and updates of an int8 file with the index.

    Its logits differ from those of the other formats, and so do some depths.
    """
    _check_accuracy(name, found, claimed)
    difference = abs(found.mean_updates - claimed["mean_depth"])
    if not difference <= UPDATES_TOLERANCE * claimed["mean_depth"]:
        raise ZooError(
            f"{name}: an image must make {claimed['mean_depth']:.2f} updates on average, but makes "
            f"{found.mean_updates:.2f}"
        )
