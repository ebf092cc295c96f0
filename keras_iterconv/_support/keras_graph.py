"""The calls of layers in the graph of a functional model."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_iterconv._support.private_keras import nodes, run_through_graph


class Call(NamedTuple):
    """One call of a layer in a functional graph.

    Attributes:
        layer: Layer or Keras operation.
        inputs: Symbolic inputs.
        outputs: Symbolic outputs.
        options: Keyword arguments that are neither tensors nor None.
    """

    layer: Any
    inputs: list
    outputs: list
    options: dict


def calls(model: keras.Model) -> Iterator[Call]:
    """Yield the calls of a functional model, each after the calls whose outputs it reads."""
    for node in nodes(model):
        options = {
            name: value
            for name, value in node.arguments.kwargs.items()
            if value is not None and not isinstance(value, keras.KerasTensor)
        }
        yield Call(node.operation, node.input_tensors, node.outputs, options)


def inputs_of(model: keras.Model, layer: keras.layers.Layer) -> Any:
    """Return the symbolic inputs of a layer of a functional model, in their structure.

    `layer.input` would also hold the masks that Keras passes to it.
    """
    return next(node.arguments.args[0] for node in nodes(model) if node.operation is layer)


def check_functional(model: Any) -> None:
    """Raise `ValueError` where `model` is not a functional Keras model."""
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise ValueError(
            "`model` must be a functional Keras model, as `create_model` returns. "
            f"Received: model={model!r}"
        )


def run(model: keras.Model, inputs: Any, apply: Callable) -> Any:
    """Return a functional model's outputs, with `apply(layer, *args, **kwargs)` for each layer.

    Args:
        model: Functional model.
        inputs: Inputs of the model, in their structure.
        apply: Function that calls a layer, or replaces the call.
    """
    return run_through_graph(model, inputs, lambda layer: functools.partial(apply, layer))
