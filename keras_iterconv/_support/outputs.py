"""Detection of a classifier's kind of outputs: logits or probabilities."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.keras_graph import Call, inner_calls, output_specs
from keras_iterconv._support.private_keras import graph_of

LINEAR, SOFTMAX, SIGMOID = "linear", "softmax", "sigmoid"

# Class names, common to layers and to Keras operations on tensors.
_PASSES = frozenset({"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze"})
_AVERAGES = frozenset({"Average", "Mean", "GlobalAveragePooling1D", "GlobalAveragePooling2D"})
# The results of these for logits are logits.
_KEEPS_LOGITS = _AVERAGES | {
    *("Add", "Concatenate", "Divide", "GetItem", "GlobalMaxPooling1D", "GlobalMaxPooling2D"),
    *("Maximum", "Multiply", "Negative", "Rescaling", "Subtract", "Sum", "TrueDivide"),
}
# Log-probabilities are logits: their softmax returns the probabilities.
_BY_NAME = {"LogSoftmax": LINEAR, "Sigmoid": SIGMOID, "Softmax": SOFTMAX}
_BY_FUNCTION = {
    keras.activations.linear: LINEAR,
    **dict.fromkeys((keras.activations.log_softmax, keras.ops.log_softmax), LINEAR),
    **dict.fromkeys((keras.activations.sigmoid, keras.ops.sigmoid, tf.nn.sigmoid), SIGMOID),
    **dict.fromkeys((keras.activations.softmax, keras.ops.softmax, tf.nn.softmax), SOFTMAX),
}
_BY_LOSS = {
    "binarycrossentropy": SIGMOID,
    "binaryfocalcrossentropy": SIGMOID,
    "categoricalcrossentropy": SOFTMAX,
    "categoricalfocalcrossentropy": SOFTMAX,
    "sparsecategoricalcrossentropy": SOFTMAX,
}


def output_activation(model: keras.Model) -> str | None:
    """Return the activation of a model's one output.

    It is determined from the last layers or, where these are Lambdas or custom layers, from the
    loss that the model was compiled with.

    Args:
        model: Keras model of one output.

    Returns:
        `"linear"` for logits, `"softmax"` or `"sigmoid"` for probabilities, None where neither the
        layers nor the loss determine it.
    """
    return _of_graph(graph_of(model)) or _of_loss(getattr(model, "loss", None))


def output_key(model: keras.Model) -> str:
    """Return the key of the outputs of a built model.

    It is `"logits"` for one output of logits `[N, classes]`; `"outputs"` for probabilities, for
    unknown outputs, where there are outputs for each position, and for several outputs.
    """
    outputs = keras.tree.flatten(output_specs(model))
    one = len(outputs) == 1 and len(outputs[0].shape) == 2
    return "logits" if one and output_activation(model) == LINEAR else "outputs"


def _of_graph(model: Any) -> str | None:
    """Return the kind of the first output of a functional model; None without a graph."""
    if model is None:
        return None
    made_by = {id(tensor): call for call in inner_calls(model) for tensor in call.outputs}

    def of_tensor(tensor: Any) -> str | None:
        call = made_by.get(id(tensor))
        if call is None or not call.inputs:
            return None
        return _of_call(call, of_tensor)

    return of_tensor(model.outputs[0])


def _of_call(call: Call, of_tensor: Callable) -> str | None:
    if _passes(call.layer):
        return of_tensor(call.inputs[0])
    if _has_kind(call.layer):
        return _of_layer(call.layer)
    # A merge, a pooling or an operation on tensors.
    kinds = {of_tensor(tensor) for tensor in call.inputs}
    kind = kinds.pop() if len(kinds) == 1 else None
    keeps = _KEEPS_LOGITS if kind == LINEAR else _AVERAGES
    return kind if type(call.layer).__name__ in keeps else None


def _of_layer(layer: Any) -> str | None:
    """Return the kind of a layer's outputs where it does not depend on the inputs."""
    if isinstance(layer, keras.Sequential):
        last = next((inner for inner in reversed(layer.layers) if not _passes(inner)), None)
        return _of_layer(last)
    if isinstance(layer, keras.Model):
        return _of_graph(graph_of(layer))
    if isinstance(layer, keras.layers.Wrapper):
        return _of_layer(layer.layer)
    if not _has_kind(layer) or isinstance(layer, keras.layers.Lambda):
        return None
    if _package(layer) == "keras_iterconv":
        return LINEAR
    if _package(layer) != "keras":
        return None
    if hasattr(layer, "activation"):
        return _BY_FUNCTION.get(layer.activation)
    # Other layers with weights, such as a normalisation, are linear.
    return _BY_NAME.get(type(layer).__name__, LINEAR)


def _passes(layer: Any) -> bool:
    """Return whether a layer changes neither the values nor the order of the classes."""
    if type(layer) is keras.layers.Activation and layer.activation is keras.activations.linear:
        return True
    return _package(layer) == "keras" and type(layer).__name__ in _PASSES


def _has_kind(layer: Any) -> bool:
    """Return whether the kind of a layer's outputs is independent of its inputs."""
    return (
        _package(layer) != "keras"
        or isinstance(layer, keras.layers.Lambda | keras.layers.Wrapper | keras.Model)
        or hasattr(layer, "activation")
        or type(layer).__name__ in _BY_NAME
        or bool(getattr(layer, "weights", None))
    )


def _package(layer: Any) -> str:
    return type(layer).__module__.split(".")[0]


def _of_loss(loss: Any) -> str | None:
    """Return the kind of outputs that a loss expects."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    name = getattr(loss, "__name__", type(loss).__name__).replace("_", "").lower()
    if name not in _BY_LOSS:
        return None
    # A loss function expects probabilities by default.
    from_logits = isinstance(loss, keras.Loss) and loss.get_config()["from_logits"]
    return LINEAR if from_logits else _BY_LOSS[name]
