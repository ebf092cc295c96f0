"""The calls of layers in the graph of a functional or Sequential model."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_iterconv._support.private_keras import (
    call_again,
    graph_of,
    nodes,
    run_through_graph,
)

# A layer for outputs of a nested model that are also one of its inputs, or another output.
_SAME = keras.layers.Identity(name="same")


class Call(NamedTuple):
    """One call of a layer in a functional graph.

    Attributes:
        layer: Layer or Keras operation.
        inputs: Symbolic inputs.
        outputs: Symbolic outputs.
        options: Keyword arguments that are neither tensors nor None.
        node: Keras's node of the call.
        within: The names of the nested models around the layer, each followed by `/`.
    """

    layer: Any
    inputs: list
    outputs: list
    options: dict
    node: Any
    within: str = ""


def calls(model: keras.Model) -> Iterator[Call]:
    """Yield the calls of a model with a graph, each after the calls whose outputs it reads."""
    for node in nodes(graph_of(model)):
        options = {
            name: value
            for name, value in node.arguments.kwargs.items()
            if value is not None and not isinstance(value, keras.KerasTensor)
        }
        yield Call(node.operation, node.input_tensors, node.outputs, options, node)


def inner_calls(model: keras.Model) -> Iterator[Call]:
    """Yield the calls of a model like `calls`, and in place of a nested model its own calls.

    Their inputs and outputs are tensors of the graph around the nested model where these are its
    inputs and outputs. A nested model that is called twice is yielded twice, with the same tensors
    inside.
    """
    yield from _inner_calls(graph_of(model), {}, {}, "")


def _inner_calls(graph: Any, outer: Mapping, options: Mapping, within: str) -> Iterator[Call]:
    """Yield the calls of a graph.

    Args:
        graph: A functional model.
        outer: For ids of the graph's symbolic tensors, the tensors of the model around it.
        options: Options of the call of the graph itself, which hold for its layers.
        within: As in `Call`.
    """
    for call in calls(graph):
        inputs, outputs = (
            [outer.get(id(tensor), tensor) for tensor in tensors]
            for tensors in (call.inputs, call.outputs)
        )
        own = {**options, **call.options}
        inner = graph_of(call.layer)
        if inner is None:
            yield call._replace(inputs=inputs, outputs=outputs, options=own, within=within)
            continue
        around = dict(zip(map(id, inner.inputs), inputs, strict=True))
        again = []
        for end, output in zip(inner.outputs, outputs, strict=True):
            if around.setdefault(id(end), output) is not output:
                again.append((around[id(end)], output))
        # The nested model's own inputs are tensors of the graph around it.
        found = _inner_calls(inner, around, own, f"{within}{call.layer.name}/")
        yield from (each for each in found if each.inputs)
        for tensor, output in again:
            yield Call(_SAME, [tensor], [output], {}, call.node)


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


def input_specs(model: keras.Model) -> Any:
    """Return a model's inputs as symbolic tensors of any batch size, in their structure.

    Those of a subclassed model are float32: Keras keeps their shapes only.

    Raises:
        ValueError: The model is not built, so that the shapes of its inputs are unknown.
    """
    graph = graph_of(model)
    if graph is not None:
        return graph.inputs[0] if len(graph.inputs) == 1 else graph.input
    shapes = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if shapes is None:
        raise ValueError(
            "`model` must be built, so that the shape of its inputs is known: call it on a batch "
            f"first. Received: model={model.name!r}, which is not"
        )
    needed = [
        name
        for name, parameter in inspect.signature(model.call).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in ("training", "mask")
    ]
    if len(needed) > 1:
        raise ValueError(
            "`model` must take its inputs as one array, list or dict of arrays, as `fit` and "
            f"`predict` pass them. Received: model={model.name!r}, whose `call` has {needed}"
        )
    return _as_inputs(shapes)


def output_specs(model: keras.Model) -> Any:
    """Return a built model's outputs as symbolic tensors, in their structure."""
    if graph_of(model) is None:
        return model.compute_output_spec(input_specs(model))
    return graph_of(model).outputs


def _as_inputs(shapes: Any, name: str | None = None) -> Any:
    """Return symbolic tensors for a structure of shapes, with the names of a dict."""
    if isinstance(shapes, dict):
        return {name: _as_inputs(shape, name) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.KerasTensor((None, *shapes[1:]), name=name)
    return [_as_inputs(shape) for shape in shapes]


def as_inputs(batch: Any, wanted: Any) -> Any:
    """Return a batch in the structure and dtypes of a model's inputs.

    Args:
        batch: A tensor or array, or a list, tuple or dict of them.
        wanted: The symbolic inputs of the model.

    Raises:
        ValueError: The batch has another number of inputs, or other names.
    """
    specs = tf.nest.flatten(wanted)
    if isinstance(batch, dict) and not isinstance(wanted, dict):
        # Keras accepts inputs by their names, too.
        found = [batch[spec.name] for spec in specs if spec.name in batch]
    else:
        found = tf.nest.flatten(batch)
    # Without names the order of a dict's arrays would be a guess.
    named = isinstance(batch, dict) and set(batch) == set(wanted)
    unclear = isinstance(wanted, dict) and not named and tf.nest.is_nested(batch)
    if len(found) != len(specs) or unclear:
        given = sorted(batch) if isinstance(batch, dict) else f"{len(found)} arrays"
        raise ValueError(
            f"A batch must hold the model's inputs {[spec.name for spec in specs]}. "
            f"Received: {given}"
        )
    cast = [tf.cast(x, spec.dtype) for x, spec in zip(found, specs, strict=True)]
    return tf.nest.pack_sequence_as(wanted, cast)


def check_functional(model: Any) -> None:
    """Raise `ValueError` where `model` is neither functional nor a built Sequential model."""
    if graph_of(model) is None:
        raise ValueError(
            "`model` must be a functional Keras model, as `create_model` returns, or a built "
            "Sequential one. "
            f"Received: model={model!r}"
        )


def run(model: keras.Model, inputs: Any, apply: Callable) -> Any:
    """Return a model's outputs, with `apply(layer, *args, **kwargs)` for each layer of its graph.

    In place of a nested model with a graph, its own layers are applied, in evaluation.

    Args:
        model: Functional or built Sequential model.
        inputs: Inputs of the model, in their structure.
        apply: Function that calls a layer, or replaces the call.
    """

    def operation(layer):
        inner = graph_of(layer)
        if inner is None:
            return functools.partial(apply, layer)

        def nested(inputs, training=None, mask=None):
            if training:
                raise ValueError(
                    f"The nested model {layer.name!r} is called with `training=True`; its layers "
                    "can be run one by one in evaluation only"
                )
            return run(inner, inputs, apply)

        return nested

    return run_through_graph(graph_of(model), inputs, operation)


def without_refused(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """Return a subclassed model's configuration without what Keras adds and `__init__` refuses."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return config
    added = {"name", "trainable", "dtype"} - set(parameters)
    return {key: value for key, value in config.items() if key not in added}
