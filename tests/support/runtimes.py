"""The runtimes that take exported files, each as a function from a file to its outputs."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx.reference import ReferenceEvaluator

import keras_iterconv as ki
from tests.support.processes import SECONDS

CPU = ["CPUExecutionProvider"]
LEVELS = onnxruntime.GraphOptimizationLevel
NODE_SCRIPT = Path(__file__).with_name("run_onnx.cjs")

# Images and the inputs of depth by name, to the outputs by name.
Run = Callable[[np.ndarray, dict[str, np.ndarray]], dict[str, Any]]


def in_onnxruntime(path: Path | bytes, **settings: Any) -> Run:
    options = onnxruntime.SessionOptions()
    # Errors are raised; it would warn of each optional input.
    options.log_severity_level = 4
    for name, value in settings.items():
        setattr(options, name, value)
    session = onnxruntime.InferenceSession(path, options, providers=CPU)
    names = [part.name for part in session.get_outputs()]
    return lambda images, depth: dict(
        zip(names, session.run(names, {"images": images, **depth}), strict=True)
    )


def optimised(level: Any) -> Callable[[Path], Run]:
    """Return a reader of what ONNX Runtime itself writes at a level of optimisation."""

    def read(path):
        written = str(path.with_name("optimised.onnx"))
        in_onnxruntime(path, graph_optimization_level=level, optimized_model_filepath=written)
        return in_onnxruntime(written)

    return read


def with_symbolic_shapes(path: Path) -> Run:
    pytest.importorskip("sympy")
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    # Two batches that lose the same samples have equal sizes, which the tool cannot know.
    inferred = SymbolicShapeInference.infer_shapes(onnx.load(path), auto_merge=True)
    return in_onnxruntime(inferred.SerializeToString())


def simplified(path: Path) -> Run:
    onnxsim = pytest.importorskip("onnxsim")
    model, is_equal = onnxsim.simplify(onnx.load(path))
    assert is_equal
    return in_onnxruntime(model.SerializeToString())


def slimmed(path: Path) -> Run:
    onnxslim = pytest.importorskip("onnxslim")
    return in_onnxruntime(onnxslim.slim(str(path)).SerializeToString())


def in_reference(path: Path) -> Run:
    session = ReferenceEvaluator(str(path))
    return lambda images, depth: dict(
        zip(session.output_names, session.run(None, {"images": images, **depth}), strict=True)
    )


def in_openvino(path: Path) -> Run:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    # By default it may compute in bfloat16.
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images, depth):
        found = compiled({"images": images, **depth})
        return {name: found[part] for part in compiled.outputs for name in part.names}

    return run


def in_node(package: str) -> Callable[[Path], Run]:
    """Return a reader of a package of ONNX Runtime for Node, where `NODE_PATH` has it."""

    def read(path):
        node = shutil.which("node")
        known = node and subprocess.run(
            [node, NODE_SCRIPT, package], capture_output=True, timeout=SECONDS
        )
        if not known or known.returncode:
            pytest.skip(f"could not import {package!r} in Node")

        def run(images, depth):
            feeds = {
                name: {"type": str(z.dtype), "dims": z.shape, "data": z.ravel().tolist()}
                for name, z in {"images": images, **depth}.items()
            }
            done = subprocess.run(
                [node, NODE_SCRIPT, package, path],
                input=json.dumps(feeds),
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            outputs = json.loads(done.stdout)
            return {name: np.array(z["data"]).reshape(z["dims"]) for name, z in outputs.items()}

        return run

    return read


def saved_model(model: keras.Model, folder: Path) -> Run:
    ki.export_saved_model(model, folder / "net")
    signatures = tf.saved_model.load(folder / "net").signatures
    return lambda images, depth: signatures["with_depth" if depth else "serving_default"](
        images=tf.constant(images), **{name: tf.constant(z) for name, z in depth.items()}
    )


def litert(model: keras.Model, folder: Path) -> Run:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    ki.export_litert(model, folder / "net.tflite")
    # With the interpreter, which must outlive its signatures.
    loaded = interpreter.Interpreter(str(folder / "net.tflite"))
    return lambda images, depth: loaded.get_signature_runner(
        "with_depth" if depth else "serving_default"
    )(images=images, **depth)


# By the first cell of their rows in docs/own_export.md: those that read an ONNX file, and those
# that read other files.
ONNX_RUNTIMES: dict[str, Callable[[Path], Run]] = {
    "ONNX Runtime in Python": in_onnxruntime,
    "its optimised file, `ORT_ENABLE_EXTENDED`": optimised(LEVELS.ORT_ENABLE_EXTENDED),
    "its `symbolic_shape_infer`, `auto_merge`": with_symbolic_shapes,
    "ONNX Runtime in Node": in_node("onnxruntime-node"),
    "ONNX Runtime in browsers (WebAssembly)": in_node("onnxruntime-web"),
    "`ReferenceEvaluator` of onnx": in_reference,
    "OpenVINO": in_openvino,
    "onnxsim, then ONNX Runtime": simplified,
    "onnxslim, then ONNX Runtime": slimmed,
}
OTHER_RUNTIMES: dict[str, Callable[[keras.Model, Path], Run]] = {
    "SavedModel in TensorFlow": saved_model,
    "LiteRT (`ai-edge-litert`)": litert,
}
