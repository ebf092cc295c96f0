"""Export of a model with its adaptive depth to a LiteRT file, `.tflite`."""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import tensorflow as tf

from keras_iterconv._support.files import replacing
from keras_iterconv._support.private_keras import mask_of
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.exporting.export_functions import check_file, file_metadata, make_exported
from keras_iterconv.exporting.exported_function import ExportedFunction
from keras_iterconv.exporting.saved_model import traced_signatures
from keras_iterconv.unrolling import Unrolled
from keras_iterconv.unrolling.fixed import run_fixed
from keras_iterconv.unrolling.whole_batch import run_whole_batch

# The file with the metadata in the archive at the end of a LiteRT file.
METADATA_FILE = "keras_iterconv.json"


def export_litert(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> None:
    """Write a model with its adaptive depth as a LiteRT file, for `ai-edge-litert` and phones.

    The file has only operators that every LiteRT runtime has. Like a SavedModel of
    `export_saved_model` it has the signature `serving_default` with the inputs of the model and,
    for a model with blocks of adaptive depth, `with_depth` with the scalars that set the depth as
    further inputs; both read the same weights. Each sample has its own depth in any batch. Stopped
    samples stay in the batch, so that a batch takes the time of its deepest sample.

    Args:
        model: As for `export_onnx`.
        path: The file; an existing one is replaced once the new one is complete.
        classes: As for `export_onnx`; `export.predict` can then use the file.
        mean: As for `export_onnx`.
        std: As for `export_onnx`.

    Raises:
        ValueError: The model cannot be exported; the message says why. No file is written.
        OSError: The file could not be written; an existing one is unchanged.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=100, threshold=1e-2, step_size=0.5, shift=0.3)
        >>> model = keras.Sequential([keras.Input((4,), name="x"), block, keras.layers.Dense(2)])
        >>> ki.export_litert(model, "net.tflite")
        >>> from ai_edge_litert.interpreter import Interpreter
        >>> run = Interpreter("net.tflite").get_signature_runner("with_depth")
        >>> x = np.array([[0.0] * 4, [1.0] * 4], np.float32)
        >>> run(x=x, threshold=np.float32(0.1), max_unroll=np.int32(5))["depth"].tolist()
        [[1], [5]]

    See also:
        `export_onnx`; `export_saved_model`; `IterativeModel.export`.
    """
    path = check_file(path)
    exported = make_exported(model, classes, mean, std)
    content = convert_function(exported)
    with replacing(path) as partial:
        partial.write_bytes(content)
        add_metadata(partial, {**file_metadata(exported, classes), **exported.limits})


def run_masked(block: Any, inputs: Any, depth: DepthSettings) -> Unrolled:
    """Return the result of an adjustable block by a loop in which all shapes are constant.

    Stopped samples stay in the batch and keep their states. In batches of 64, the loop that removes
    them takes 1.4 to 2 times the time in LiteRT (`python -m benchmarks.litert_inference`).

    """
    mask, state = mask_of(inputs), block.make_initial_state(inputs)
    update, rule = block.bind(state, inputs, mask)
    update, limit = update.with_drives(), tf.convert_to_tensor(depth.max_unroll)
    if block.threshold is None:
        unrolled = Unrolled.fixed(run_fixed(update, state, limit).state, limit)
        return block.as_outputs(unrolled, mask)
    threshold, least = tf.convert_to_tensor(depth.threshold, tf.float32), block.min_unroll
    end = run_whole_batch(update, state, limit, threshold, rule=rule, min_unroll=least)
    value = cast(tf.Tensor, end.value)
    unrolled = Unrolled.adaptive(end.state, end.depth, value, threshold, rule, least)
    return block.as_outputs(unrolled, mask)


def _check_convertible(block: Any) -> None:
    """Raise `ValueError` for a block with Anderson acceleration, or that returns its states."""
    if getattr(block, "solver", "picard") != "picard":
        raise ValueError(
            'Blocks must have `solver="picard"` to be exported to LiteRT; where both solvers '
            "converge, they converge to the same state. "
            f"Received: {block.name!r} with solver={block.solver!r}"
        )
    if "states" in getattr(block, "returns", ()):
        raise ValueError(
            "Blocks must not return their states to be exported to LiteRT; make the model for "
            "export without, and give it the weights of this one. "
            f"Received: {block.name!r} with returns={block.returns}"
        )


def convert_function(exported: ExportedFunction, run_block: Callable = run_masked) -> bytes:
    """Return the function of a file as a LiteRT model, without metadata.

    Args:
        exported: The function.
        run_block: Function `(block, inputs, settings)` that runs an adjustable block.

    Raises:
        ValueError: The model cannot be converted, or has operations that LiteRT has not.
    """
    for call in exported.calls:
        _check_convertible(call.block)
    with exported.as_exported():
        signatures = traced_signatures(exported, run_block)
    module = tf.Module()
    module.weights = exported.variables
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures)
        places = _remove_shape_checks(Path(folder) / "saved_model.pb")
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(
                folder, signature_keys=list(signatures)
            )
            # Else it prints about operations that LiteRT has not, and names no layer.
            converter.allow_custom_ops = True
            content = converter.convert()
        # The converter's own errors have no base class but this.
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"The model {exported.model.name!r} cannot be converted to LiteRT: {reason}. "
                "Export a SavedModel or an ONNX file"
            ) from error
    left = _custom_operators(content)
    if left:
        found = ", ".join(f"{name!r} in {places.get(name, 'the model')!r}" for name in left)
        raise ValueError(
            "`model` must have only operations that LiteRT has, to be exported to it; replace the "
            "layers that use others, or export a SavedModel or an ONNX file. "
            f"Received: the TensorFlow operations {found}"
        )
    return content


def add_metadata(file: Path, texts: Mapping[str, str]) -> None:
    """Append an archive with the metadata to a LiteRT file, as LiteRT's own tools append files.

    A runtime reads the model before it, and `zipfile` the archive after it.
    """
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(METADATA_FILE, json.dumps(dict(texts), indent=2))


def _remove_shape_checks(file: Path) -> dict[str, str]:
    """Replace the checks of static shapes in a SavedModel, which LiteRT has not, by nothing.

    Returns:
        The name of one node of each operation; Keras begins it with the layer's path.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = saved.meta_graphs[0].graph_def
    places: dict[str, str] = {}
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            places.setdefault(node.op, node.name)
            if node.op == "EnsureShape":
                node.op = "Identity"
                del node.attr["shape"]
    file.write_bytes(saved.SerializeToString())
    return places


def _custom_operators(content: bytes) -> list[str]:
    """Return the names of the operations that the converter left as TensorFlow has them."""
    from tensorflow.lite.python import schema_py_generated

    model = schema_py_generated.Model.GetRootAs(content, 0)
    codes = (model.OperatorCodes(n).CustomCode() for n in range(model.OperatorCodesLength()))
    return sorted(code.decode() for code in codes if code is not None)
