"""Export of models to SavedModels, for TensorFlow without Keras."""

import os
import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv.exporting.exported_function import ExportedFunction, check_names, run_block
from keras_iterconv.exporting.image_classifier import ImageClassifier
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS, Task

SIGNATURE = "serving_default"
# The depth settings are inputs of a second signature: inputs of a SavedModel cannot be optional.
DEPTH_SIGNATURE = "with_depth"
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def write_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    preprocessing: Preprocessing,
    task: Task = TASKS["classes"],
) -> None:
    """Write an image classifier as a SavedModel; see `save_function`.

    Args:
        model: Model from standardised images to logits or probabilities.
        path: Folder to write.
        preprocessing: Standardisation of raw pixel values.
        task: Task of the model.

    Raises:
        ValueError: The outputs are neither logits nor probabilities.
    """
    classifier = ImageClassifier(model, preprocessing, task)
    save_function(ExportedFunction(model, classifier), path)


def save_function(exported: ExportedFunction, path: str | os.PathLike) -> None:
    """Write the function of a file as a SavedModel.

    Its signature `serving_default` has the inputs of the function. A net of adaptive depth has a
    second signature, `with_depth`, whose further inputs are the scalars that set the depth.
    TensorFlow writes `_` for each `/` of their names. As in the files of Keras, `serve` is a
    function of the loaded object, from the model's inputs to its outputs, each in their structure.

    Args:
        exported: The function.
        path: Folder to write.
    """
    signatures = traced_signatures(exported)
    # Not by `keras.Model.export`, which writes each weight twice.
    module = tf.Module()
    module.serve = _traced_call(exported)
    module.weights = exported.variables
    # TensorFlow cannot write the gradients of loops that also return all their states.
    returned = {name for call in exported.calls for name in getattr(call.block, "returns", ())}
    options = tf.saved_model.SaveOptions(experimental_custom_gradients="states" not in returned)
    tf.saved_model.save(module, os.fspath(path), signatures, options)


def traced_signatures(
    exported: ExportedFunction, run_block: Callable = run_block
) -> dict[str, Callable]:
    """Return the traced functions of the signatures, which read the model's variables.

    Args:
        exported: The function of a file.
        run_block: As for a call of it.
    """
    inputs, depth = (
        [_renamed(spec) for spec in specs] for specs in (exported.inputs, exported.depth_specs)
    )

    def serve(*values: Any) -> dict[str, tf.Tensor]:
        return exported(values, None, run_block)

    def serve_with_depth(*values: Any) -> dict[str, tf.Tensor]:
        return exported(values[: len(inputs)], values[len(inputs) :], run_block)

    check_names("inputs", [spec.name for spec in (*inputs, *depth)])
    functions = {SIGNATURE: (serve, inputs)}
    if depth:
        functions[DEPTH_SIGNATURE] = (serve_with_depth, [*inputs, *depth])
    signatures = {}
    for name, (function, specs) in functions.items():
        signatures[name] = tf.function(function, input_signature=specs, autograph=False)
        _check_no_python(signatures[name].get_concrete_function().graph)
    return signatures


def _check_no_python(graph: tf.Graph) -> None:
    """Raise `ValueError` for calls of Python functions, which no file can hold."""
    left = {operation.type for operation in graph.get_operations()} & _PYTHON
    if left:
        raise ValueError(
            "`model` must call no Python function of its own at run time, as `tf.py_function` and "
            f"`tf.numpy_function` do, to be exported. Received: the operations {sorted(left)}"
        )


def _traced_call(exported: ExportedFunction) -> Callable:
    """Return the traced function from the inputs to the outputs of a model."""

    def serve(inputs: Any) -> Any:
        return exported.predict(tf.nest.flatten(inputs))

    specs = tf.nest.pack_sequence_as(exported.structure, exported.inputs)
    return tf.function(serve, input_signature=[specs], autograph=False)


def _renamed(spec: tf.TensorSpec) -> tf.TensorSpec:
    """Return a specification with a name that signatures can have."""
    return tf.TensorSpec(spec.shape, spec.dtype, re.sub(r"\W", "_", spec.name, flags=re.ASCII))
