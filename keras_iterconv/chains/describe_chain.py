"""Finding the blocks of a stage in a functional model of any layers."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

from keras_iterconv._support.checks import unknown_name
from keras_iterconv._support.keras_graph import (
    Call,
    calls,
    calls_between,
    check_functional,
    producers,
)
from keras_iterconv._support.private_keras import mask_of
from keras_iterconv.chains.model_chain import Chain, ChainBlock


def chain(model: keras.Model, blocks: str | Sequence, name: str | None = None) -> Chain:
    r"""Return a stage of a functional model of any layers, as a chain of residual blocks.

    Each block leads from one state to the next, which has the same shape. It may read the state
    before it and the first state of the chain, and nothing else.

    The first block begins at the nearest tensor of the state's shape from which its layers are of
    the same types as those of the second block. Where there is none, the first block is not part of
    the chain and its output is the chain's first state: so it is with the block that changes the
    shape at the start of each stage of `keras.applications.ResNet50`. To take in a first block of
    other types, name the layer before it as if it closed a block.

    Args:
        model: Functional model.
        blocks: What closes each block, at least two of them: a list of names of layers, of layers,
            such as the `keras.layers.Add` of a residual block, or of symbolic tensors. Or a
            regular expression, which must match whole names of layers: every call of such a layer
            closes a block, in the order of the model; or, where the expression has groups, the last
            call of those that agree in the first group. `r"conv4_block\d+_out"` and
            `r"conv4_block(\d+)_.*"` give the same chain.
        name: Name in reports. None for the names of the first and the last block.

    Returns:
        A `Chain`, for `measure_indices` and for `GradientCoupling(groups=...)`.

    Raises:
        ValueError: The model is not functional; a name, a layer or a tensor is not in it; a layer
            in a list is called several times; the states differ in shape or have a mask; or a path
            leads around a state.

    Example:
        >>> x = inputs = keras.Input((8, 8, 4))
        >>> for t in range(3):
        ...     y = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        ...     y = keras.layers.BatchNormalization()(y)
        ...     x = keras.layers.Add(name=f"stage1_add{t}")([x, y])
        >>> net = keras.Model(inputs, x)
        >>> len(ki.chain(net, "stage1_add.", name="stage1").blocks)
        3

    See also:
        `Chain`, what it returns; `measure_indices`; `GradientCoupling`.
    """
    check_functional(model)
    all_calls = list(calls(model))
    if isinstance(blocks, str):
        closing = _matching(all_calls, blocks)
    else:
        closing = [_closing(all_calls, item) for item in _check_list(blocks)]
    if len(closing) < 2:
        raise ValueError(
            "`blocks` must name at least two blocks by the layers that close them. "
            f"Received: blocks={blocks!r}, which names {[call.layer.name for call in closing]}"
        )
    states = _states(closing)
    made_by = producers(model)
    first = _first_state(made_by, states)
    if first is None:
        first, closing, states = states[0], closing[1:], states[1:]
    found = []
    for t, (call, state) in enumerate(zip(closing, states, strict=True)):
        inside = calls_between(made_by, state, (first, *states[t - 1 : t]))
        if inside is None or not _follows(inside, states[:t]):
            before = made_by[id(states[t - 1] if t else first)].layer.name
            raise ValueError(
                f"All paths to {call.layer.name!r}, which closes a block, must lead through "
                f"{before!r} before it, or through the chain's first state, the output of "
                f"{made_by[id(first)].layer.name!r}. Name the layers that close the blocks, such "
                f"as additions, in their order. Received: blocks={blocks!r}"
            )
        found.append(ChainBlock(call.layer.name, inside, state))
    return Chain(model, found, first, name or f"{found[0].name}-{found[-1].name}")


def _follows(inside: list[Call], earlier: list) -> bool:
    """Return whether the calls of a block read the last of the earlier states, and no other."""
    read = {id(tensor) for call in inside for tensor in call.inputs}
    return all((id(state) in read) == (state is earlier[-1]) for state in earlier)


def _check_list(blocks: Any) -> list:
    if not isinstance(blocks, Sequence):
        raise ValueError(
            "`blocks` must be a regular expression on names of layers, or a list of names, layers "
            f"or symbolic tensors. Received: blocks={blocks!r}"
        )
    return list(blocks)


def _matching(all_calls: list[Call], pattern: str) -> list[Call]:
    """Return the calls that close blocks: the last of each first group, or all that match."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`blocks` must be a regular expression: {error}. Received: blocks={pattern!r}"
        ) from error
    last = {}
    for number, call in enumerate(all_calls):
        if match := expression.fullmatch(call.layer.name):
            last[match[1] if expression.groups else number] = call
    if not last:
        raise ValueError(
            f"`blocks` must match names of layers of the model. {_names(all_calls)} "
            f"Received: blocks={pattern!r}"
        )
    return list(last.values())


def _closing(all_calls: list[Call], item: Any) -> Call:
    """Return the call of a layer, given by itself or its name, or that of a symbolic tensor."""
    if isinstance(item, keras.KerasTensor):
        found = [call for call in all_calls if any(item is each for each in call.outputs)]
    elif isinstance(item, str):
        found = [call for call in all_calls if call.layer.name == item]
        if not found:
            names = {call.layer.name for call in all_calls}
            raise ValueError(unknown_name("blocks", item, names))
    else:
        found = [call for call in all_calls if call.layer is item]
    if not found:
        raise ValueError(
            "`blocks` must hold names of layers, layers or symbolic tensors of the model. "
            f"{_names(all_calls)} Received: {item!r}"
        )
    if len(found) > 1:
        raise ValueError(
            f"`blocks` names {found[0].layer.name!r}, which the model calls {len(found)} times. "
            "Name the layers that close the blocks, or give a string in place of the list if each "
            "call of this layer is a block."
        )
    return found[0]


def _names(all_calls: list[Call]) -> str:
    """Return the names that can be given, for an error message."""
    names = list(dict.fromkeys(call.layer.name for call in all_calls))
    nested = [call.layer.name for call in all_calls if isinstance(call.layer, keras.Model)]
    inside = (
        f"; the layers inside of the nested {nested} are not among them: call the layers behind "
        "such a model on its output, `keras.Model(inner.input, head(inner.output))`"
        if nested
        else ""
    )
    return f"Its last layers are {', '.join(names[-8:])}{inside}."


def _states(closing: list[Call]) -> list[keras.KerasTensor]:
    """Return the outputs of the calls that close blocks, which must be states of one chain."""
    first = closing[0]
    for call in closing:
        if len(call.outputs) != 1:
            raise ValueError(
                "A layer that closes a block must have one output, the state. "
                f"Received: {call.layer.name!r} with {len(call.outputs)} outputs"
            )
        if mask_of(call.outputs) is not None:
            # Keras hands masks on beside the states, so that a block alone would not get them.
            raise ValueError(
                "The states of a chain must not have a Keras mask. "
                f"Received: {call.layer.name!r}, whose output has one"
            )
        shape, first_shape = tuple(call.outputs[0].shape), tuple(first.outputs[0].shape)
        if shape != first_shape:
            raise ValueError(
                f"All states of a chain must have one shape. Received: {first_shape} after "
                f"{first.layer.name!r}, {shape} after {call.layer.name!r}. Describe each stage of "
                "the model by a chain of its own."
            )
    return [call.outputs[0] for call in closing]


def _first_state(made_by: dict, states: list) -> keras.KerasTensor | None:
    """Return the state from which the first block has layers of the types of the second's."""

    def types(end, starts):
        inside = calls_between(made_by, end, starts)
        return None if inside is None else Counter(type(call.layer) for call in inside)

    # The nearest first: the tensors through which all paths lead lie one behind the other.
    for call in reversed(made_by.values()):
        for tensor in call.outputs:
            if tuple(tensor.shape) == tuple(states[0].shape):
                first = types(states[0], (tensor,))
                if first is not None and first == types(states[1], (states[0], tensor)):
                    return tensor
    return None
