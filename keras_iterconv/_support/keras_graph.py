"""The graph of a functional model, call by call."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import keras

from keras_iterconv._support.private_keras import nodes, run_through_graph


class Call(NamedTuple):
    """One call of a layer in a functional graph.

    Attributes:
        layer: The layer, or Keras operation.
        inputs: Its symbolic inputs.
        outputs: Its symbolic outputs.
        options: Its keyword arguments that are not tensors and not None.
    """

    layer: object
    inputs: list
    outputs: list
    options: dict


def calls(model: keras.Model) -> Iterator[Call]:
    """Yield the calls of a functional model, each after those that it needs."""
    for node in nodes(model):
        options = {
            name: value
            for name, value in node.arguments.kwargs.items()
            if value is not None and not isinstance(value, keras.KerasTensor)
        }
        yield Call(node.operation, node.input_tensors, node.outputs, options)


def check_functional(model) -> None:
    """Raise `ValueError` where `model` is no functional Keras model."""
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise ValueError(
            "`model` must be a functional Keras model, as `create_model` returns. "
            f"Received: model={model!r}"
        )


def run(model: keras.Model, inputs, apply):
    """Compute a functional model's outputs, each layer called as `apply(layer, *args, **kwargs)`.

    Args:
        model: The model.
        inputs: Its inputs, tensors of their structure.
        apply: A function that calls a layer, or does something else in its place.
    """
    return run_through_graph(model, inputs, lambda layer: functools.partial(apply, layer))
