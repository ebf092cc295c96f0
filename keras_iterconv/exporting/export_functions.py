"""Export of any Keras model from user code: `export_onnx` and `export_saved_model`."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_iterconv._support.checks import check_choice
from keras_iterconv._support.files import replacing, replacing_folder
from keras_iterconv._support.keras_graph import output_specs
from keras_iterconv._support.outputs import SIGMOID, output_activation
from keras_iterconv.exporting.exported_function import ExportedFunction
from keras_iterconv.exporting.image_classifier import ImageClassifier
from keras_iterconv.exporting.saved_model import save_function
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS, Task
from keras_iterconv.trainer import IterativeModel

FORMATS = ("tf_saved_model", "onnx", "litert")
INPUTS = ("settable", "required", "fixed")
# The file that each SavedModel has.
_SAVED_MODEL_FILE = "saved_model.pb"


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    inputs: str = "settable",
) -> None:
    """Write a model with its adaptive depth as an ONNX file, opset 18.

    The file has the inputs of the model by their names. A model with blocks of adaptive depth has
    optional inputs with the model's settings as defaults: the scalars `threshold`, float32, and
    `max_unroll`, int32, for all blocks; where their settings differ, `threshold/<path>` and
    `max_unroll/<path>` for each, by the paths of `block_calls`. The outputs are those of the model
    and, if it has blocks, `depth` and `status`, int32 `[N, calls]`, as `with_depth` returns them.
    One output is called `"logits"` or `"outputs"`, as by `with_depth`; several have the names that
    Keras has for them.

    Args:
        model: Any built Keras model: functional, Sequential or subclassed, with nested models. It
            is exported in evaluation and in float32, Lipschitz caps folded into the kernels.
        path: The file; an existing one is replaced once the new one is complete.
        classes: Names of the classes of an image classifier: `export.predict` and
            `OnnxClassifier` can then use the file. Its one input is `image`, float32 `[N, H, W, C]`
            in raw values, and its outputs are `logits`, `probabilities`, `depth` and `status`.
        mean: Mean of the raw values, a number or one for each channel; the file then standardises
            its input `image` itself, `(image - mean) / std`. None for 0.
        std: Standard deviation of the raw values, likewise. None for 1.
        inputs: `"settable"`; `"required"` for inputs without defaults, which must always be given,
            for tools that take optional inputs for constants, such as OpenVINO and ONNX Runtime
            in Node and in browsers; or `"fixed"` to bake the depth settings in.

    Raises:
        ValueError: The model cannot be exported; the message says why. No file is written.
        ImportError: The packages of the extra `export` are not installed.
        OSError: The file could not be written; an existing one is unchanged.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=100, threshold=1e-2, step_size=0.5, shift=0.3)
        >>> model = keras.Sequential([keras.Input((4,), name="x"), block, keras.layers.Dense(2)])
        >>> ki.export_onnx(model, "net.onnx")
        >>> import onnxruntime
        >>> session = onnxruntime.InferenceSession("net.onnx")
        >>> x = np.array([[0.0] * 4, [1.0] * 4], np.float32)
        >>> logits, depth, status = session.run(None, {"x": x})
        >>> depth.tolist()
        [[1], [25]]
        >>> session.run(["depth"], {"x": x, "threshold": np.array(0.1, np.float32)})[0].tolist()
        [[1], [13]]

    See also:
        `quantize_onnx`; `export_saved_model`; `export_litert`; `IterativeModel.export`;
        `with_depth`.
    """
    check_choice("inputs", inputs, INPUTS)
    path = check_file(path)
    try:
        import onnx

        from keras_iterconv.exporting.onnx_model import convert_function
    except ImportError as error:
        raise ImportError(
            f'{error}: the export to ONNX needs `pip install "keras-iterconv[export]"`'
        ) from error
    exported = make_exported(model, classes, mean, std)
    converted = convert_function(exported, file_metadata(exported, classes), inputs)
    with replacing(path) as partial:
        onnx.save(converted, partial)


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> None:
    """Write a model with its adaptive depth as a TensorFlow SavedModel.

    The signature `serving_default` has the inputs of the model and the outputs that `export_onnx`
    describes. A model with blocks of adaptive depth has a second signature, `with_depth`, with the
    scalars that set the depth as further inputs. TensorFlow writes the names `threshold/<path>` of
    blocks with different settings with `_` in place of `/`. As in the files of Keras, `serve` is a
    function of the loaded object, from the model's inputs to its outputs, each in their structure.

    Args:
        model: As for `export_onnx`.
        path: The folder; an existing SavedModel is replaced once the new one is complete.
        classes: As for `export_onnx`; a SavedModel does not store the names.
        mean: As for `export_onnx`.
        std: As for `export_onnx`.

    Raises:
        ValueError: The model cannot be exported; the message says why. Nothing is written.
        OSError: The folder could not be written, or is one of other files; it is unchanged.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=100, threshold=1e-2, step_size=0.5, shift=0.3)
        >>> model = keras.Sequential([keras.Input((4,), name="x"), block, keras.layers.Dense(2)])
        >>> ki.export_saved_model(model, "net")
        >>> run = tf.saved_model.load("net").signatures["with_depth"]
        >>> x = tf.constant([[0.0] * 4, [1.0] * 4])
        >>> found = run(x=x, threshold=tf.constant(0.1), max_unroll=tf.constant(5))
        >>> found["depth"].numpy().tolist()
        [[1], [5]]

    See also:
        `export_onnx`; `export_litert`; `IterativeModel.export`.
    """
    path = check_path(path)
    if path.exists() and not (path / _SAVED_MODEL_FILE).is_file() and any(_entries(path)):
        raise FileExistsError(
            f"`path` must be a new or empty folder, or a SavedModel, which is replaced. "
            f"Received: path={os.fspath(path)!r}, which holds something else"
        )
    exported = make_exported(model, classes, mean, std)
    with replacing_folder(path) as staged:
        save_function(exported, staged)


def exporter_to(format: str) -> Callable:
    """Return the function that writes a model in a format of `IterativeModel.export`.

    Raises:
        ValueError: There is none.
    """
    check_choice("format", format, FORMATS)
    if format == "litert":
        from keras_iterconv.exporting.litert import export_litert

        return export_litert
    return export_onnx if format == "onnx" else export_saved_model


def make_exported(
    model: keras.Model,
    classes: Sequence[str] | None,
    mean: Sequence[float] | float | None,
    std: Sequence[float] | float | None,
) -> ExportedFunction:
    """Return the function of a file, for the arguments of the export functions.

    Raises:
        ValueError: An argument does not fit the model.
    """
    if isinstance(model, IterativeModel):
        model.restore_guarantees()
    if classes is None and mean is None and std is None:
        return ExportedFunction(model)
    plain = ExportedFunction(model)
    shape = plain.inputs[0].shape
    if len(plain.inputs) != 1 or shape.rank is None or shape.rank < 2 or shape[-1] is None:
        raise ValueError(
            "`model` must have one input with a known number of channels to be exported with "
            f"`classes`, `mean` or `std`. Received: inputs {plain.inputs}"
        )
    task = TASKS["regression"]
    if classes is not None:
        task = _classification(model, classes)
        if shape.rank != 4:
            raise ValueError(
                "`classes` needs a model of images [N, height, width, channels]. "
                f"Received: a model of inputs {shape}"
            )
    values = {"mean": 0.0 if mean is None else mean, "std": 1.0 if std is None else std}
    preprocessing = Preprocessing(
        **{name: _by_channel(name, value, shape[-1]) for name, value in values.items()}
    )
    return ExportedFunction(model, ImageClassifier(model, preprocessing, task))


def _classification(model: Any, classes: Sequence[str]) -> Task:
    """Return the task of a classifier, checked against the names of its classes."""
    outputs = keras.tree.flatten(output_specs(model))
    names = [] if isinstance(classes, str) else list(classes)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`classes` must be a list of names. Received: classes={classes!r}")
    if len(outputs) != 1 or len(outputs[0].shape) < 2 or outputs[0].shape[-1] != len(names):
        raise ValueError(
            f"`classes` must name each class of the model's one output. Received: {len(names)} "
            f"classes for outputs of shapes {[tuple(z.shape) for z in outputs]}"
        )
    if len(outputs[0].shape) > 2:
        return TASKS["labels_per_position"]
    return TASKS["label_sets" if output_activation(model) == SIGMOID else "classes"]


def _by_channel(name: str, value: Any, channels: int) -> tuple[float, ...]:
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    fits = numbers.shape in ((), (1,), (channels,)) and np.isfinite(numbers).all()
    if not fits or (name == "std" and not (numbers > 0).all()):
        positive = "positive " if name == "std" else ""
        raise ValueError(
            f"`{name}` must be a {positive}finite number, or one for each of the {channels} "
            f"channels. Received: {name}={value!r}"
        )
    return tuple(np.broadcast_to(numbers, (channels,)).tolist())


def file_metadata(exported: ExportedFunction, classes: Sequence[str] | None) -> dict[str, str]:
    """Return the metadata of a file: what `OnnxClassifier` reads, and the depth settings."""
    texts = {"model": exported.model.name}
    if classes is not None:
        texts |= {"dataset": "own", "classes": json.dumps(list(classes)), "scale": "255"}
    texts |= {each.spec.name: json.dumps(each.default) for each in exported.depth_inputs}
    return texts


def check_path(path: str | os.PathLike) -> Path:
    """Return the path of a file or folder to write, which must lie in an existing folder."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"`path` must lie in an existing folder. Received: path={os.fspath(path)!r}"
        )
    return path


def check_file(path: str | os.PathLike) -> Path:
    """Return the path of a file to write, whose folder exists."""
    path = check_path(path)
    if path.exists() and not path.is_file():
        raise FileExistsError(
            "`path` must be a new file, or one that is replaced. "
            f"Received: path={os.fspath(path)!r}, which is no file"
        )
    return path


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else [path]
