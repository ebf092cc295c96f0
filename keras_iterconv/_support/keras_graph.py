"""The calls of layers in the graph of a functional model."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras

from keras_iterconv._support.private_keras import call_again, nodes, run_through_graph


class Call(NamedTuple):
    """One call of a layer in a functional graph.

    Attributes:
        layer: Layer or Keras operation.
        inputs: Symbolic inputs.
        outputs: Symbolic outputs.
        options: Keyword arguments that are neither tensors nor None.
        node: Keras's node of the call.
    """

    layer: Any
    inputs: list
    outputs: list
    options: dict
    node: Any


def calls(model: keras.Model) -> Iterator[Call]:
    """Yield the calls of a functional model, each after the calls whose outputs it reads."""
    for node in nodes(model):
        options = {
            name: value
            for name, value in node.arguments.kwargs.items()
            if value is not None and not isinstance(value, keras.KerasTensor)
        }
        yield Call(node.operation, node.input_tensors, node.outputs, options, node)


def producers(model: keras.Model) -> dict[int, Call]:
    """Return the call that computes each tensor of a functional model, by the tensor's `id`."""
    return {id(tensor): call for call in calls(model) for tensor in call.outputs}


def calls_between(made_by: dict[int, Call], end: Any, starts: Iterable) -> list[Call] | None:
    """Return the calls that compute a symbolic tensor from others.

    The order depends on these calls alone: it is the same in equal parts of a model.

    Args:
        made_by: The calls of the model, as `producers` returns them.
        end: The tensor.
        starts: The tensors that are given.

    Returns:
        The calls, each after those whose outputs it reads; None where a path leads from an input of
        the model around the given tensors.
    """
    given = {id(tensor) for tensor in starts}
    found: dict[int, Call] = {}
    # Not by recursion: nets are deeper than Python's stack.
    stack = [(end, False)]
    while stack:
        tensor, are_inputs_found = stack.pop()
        call = made_by[id(tensor)]
        if id(tensor) in given or id(call.outputs[0]) in found:
            continue
        if are_inputs_found:
            found[id(call.outputs[0])] = call
            continue
        if not call.inputs:
            return None
        stack.append((tensor, True))
        stack.extend((each, False) for each in reversed(call.inputs))
    return list(found.values())


def run_calls(found: Iterable[Call], given: Iterable[tuple[Any, Any]], end: Any) -> Any:
    """Return the value of a symbolic tensor in evaluation, from those of others.

    A `keras.Model` between these tensors would add a node to each layer, and cannot be made where a
    layer that computes one of the given tensors is called again after it.

    Args:
        found: The calls between them, as `calls_between` returns them.
        given: Pairs of a symbolic tensor and its value.
        end: The tensor.
    """
    values = {id(tensor): value for tensor, value in given}
    for call in found:
        values.update(zip(map(id, call.outputs), call_again(call.node, values), strict=True))
    return values[id(end)]


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
