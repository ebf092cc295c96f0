"""The blocks of any Keras model, and the calls of them in their order."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_iterconv._support.keras_graph import inner_calls, input_specs
from keras_iterconv._support.private_keras import graph_of, layers_of
from keras_iterconv.layers.call_record import RecordedCall, recording
from keras_iterconv.layers.protocol import is_block, is_iteration_layer

# Why the calls of a block cannot be seen.
UNSEEN = (
    "called in a wrapper, in a function that was traced before, only in training, or not at all"
)


class BlockCall(NamedTuple):
    """One call of a block in one run of a model.

    Attributes:
        path: The names of the models and layers around the block and its own, joined by `/`; from
            the second call on followed by the number of the call, as in `"block#2"`.
        block: The block.
        image: `(height, width)` of its input, each None where unknown; None without them.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 4)), ki.NAISConv2D(4, name="block")])
        >>> call = ki.block_calls(model)[0]
        >>> call.path, call.block.max_unroll, call.image
        ('block', 10, (8, 8))

    See also:
        `block_calls`; `with_depth`, which has a column for each.
    """

    path: str
    block: Any
    image: tuple[int | None, int | None] | None


def check_model(model: Any) -> None:
    """Raise `ValueError` where `model` is not a Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras model: functional, Sequential or subclassed. "
            f"Received: model={model!r}"
        )


def check_has_blocks(model: Any) -> None:
    """Raise `ValueError` where `model` is not a Keras model with a block."""
    if not iterated_blocks(model):
        raise ValueError(
            "`model` must contain at least one block that counts updates, a NAIS block or a "
            f"residual stage for example. Received: model={model.name!r} without one"
        )


def iterated_blocks(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the iterated blocks of a Keras model, each once.

    Blocks lie in the model itself, in a model nested in it or in any other layer. They are ordered
    from input to output; those of a subclassed model or layer as it holds them, since its graph is
    not known. A block in the update of another block is a part of it, and not listed.

    Args:
        model: Keras model, built or not.

    Raises:
        ValueError: `model` is not a Keras model.

    Example:
        >>> block = ki.NAISDense(8, name="block")
        >>> inputs = keras.Input((8,))
        >>> model = keras.Model(inputs, block(block(inputs)))
        >>> [layer.name for layer in ki.iterated_blocks(model)]  # called twice, but one block
        ['block']

    See also:
        `block_calls`, which counts each call; `set_depth`.
    """
    check_model(model)
    return list(dict.fromkeys(_blocks_of(model)))


def block_calls(model: keras.Model) -> tuple[BlockCall, ...]:
    """Return the calls of a model's blocks, in their order: one column each of `with_depth`.

    A block that is called several times, or lies in a model that is, has several calls. The calls
    of a subclassed model or layer are found by running its `call` on symbolic tensors.

    Args:
        model: Keras model; a Sequential or subclassed one must be built.

    Raises:
        ValueError: `model` is not a Keras model or is not built; or it holds a block that it does
            not call itself, but in a function traced before or by a wrapper, only in training, or
            not at all.

    Example:
        >>> inputs = keras.Input((8,))
        >>> layers = [keras.Input((8,)), ki.NAISDense(8, name="block")]
        >>> backbone = keras.Sequential(layers, name="net")
        >>> model = keras.Model(inputs, keras.layers.Dense(3)(backbone(inputs)))
        >>> [call.path for call in ki.block_calls(model)]
        ['net/block']

    See also:
        `iterated_blocks`, each block once; `with_depth`; `processing_depth`.
    """
    check_model(model)
    made = iteration_calls(model)
    hidden = [path for layer, path in hidden_layers(model, made) if is_block(layer)]
    if hidden:
        raise ValueError(
            "`model` must call all its blocks itself, so that their updates can be counted. "
            f"Received: model={model.name!r}, whose block {hidden[0]!r} is {UNSEEN}"
        )
    return tuple(call for call in made if is_block(call.block))


def iteration_calls(model: keras.Model) -> tuple[BlockCall, ...]:
    """Return the calls of all layers that are repeated or repeat, blocks and others, in order."""
    counts: Counter[str] = Counter()
    found = []
    for path, layer, image in _calls_of(model):
        counts[path] += 1
        number = counts[path]
        found.append(BlockCall(path if number == 1 else f"{path}#{number}", layer, image))
    return tuple(found)


def hidden_layers(model: keras.Model, made: Iterable[BlockCall]) -> list[tuple[Any, str]]:
    """Return the layers that are repeated or repeat and whose calls are not seen, with their paths.

    Args:
        model: Keras model.
        made: What `iteration_calls` found.
    """
    called = {id(call.block) for call in made}
    return [(layer, path) for layer, path in _paths_of(model, "") if id(layer) not in called]


def _blocks_of(layer: Any) -> Iterator[Any]:
    graph = graph_of(layer)
    inner = layers_of(layer) if graph is None else [call.layer for call in inner_calls(graph)]
    for each in inner:
        if is_block(each):
            yield each
        elif isinstance(each, keras.layers.Layer) and not is_iteration_layer(each):
            yield from _blocks_of(each)


def _paths_of(layer: Any, prefix: str) -> Iterator[tuple[Any, str]]:
    """Yield each repeated or repeating layer with its path."""
    for each in layers_of(layer):
        path = f"{prefix}{each.name}"
        if is_iteration_layer(each):
            yield each, path
        else:
            yield from _paths_of(each, f"{path}/")


def _calls_of(model: keras.Model) -> Iterator[tuple[str, Any, Any]]:
    """Yield `(path, layer, image)` for each call of a layer that is repeated or repeats."""
    graph = graph_of(model)
    if graph is None:
        yield from _traced(model, "", [input_specs(model)], {})
        return
    for call in inner_calls(graph):
        layer = call.layer
        if is_iteration_layer(layer):
            shape = call.inputs[0].shape if call.inputs else ()
            image = tuple(shape[1:3]) if len(shape) == 4 else None
            yield f"{call.within}{layer.name}", layer, image
        elif isinstance(layer, keras.layers.Layer) and any(_paths_of(layer, "")):
            prefix = f"{call.within}{layer.name}/"
            yield from _traced(layer, prefix, call.node.arguments.args, call.options)


def _traced(layer: Any, prefix: str, args: Any, options: dict) -> list[tuple[str, Any, Any]]:
    """Return `(path, layer, image)` for each call in one run of a layer on symbolic tensors."""
    is_tensor = [isinstance(z, keras.KerasTensor) for z in keras.tree.flatten(args)]
    made: list[RecordedCall] = []

    def run(*tensors):
        rest = iter(tensors)
        given = [
            next(rest) if symbolic else value
            for symbolic, value in zip(is_tensor, keras.tree.flatten(args), strict=True)
        ]
        with recording() as record:
            layer(*keras.tree.pack_sequence_as(args, given), **options)
        made.extend(record.calls)
        return tf.constant(0)

    specs = [
        tf.TensorSpec((None, *z.shape[1:]), z.dtype)
        for z in keras.tree.flatten(args)
        if isinstance(z, keras.KerasTensor)
    ]
    tf.function(run).get_concrete_function(*specs)
    paths = {id(each): path for each, path in _paths_of(layer, prefix)}
    return [(paths.get(id(call.layer), call.layer.name), call.layer, call.image) for call in made]
