"""The calls of blocks while a model runs, in whatever Python code it calls them.

`handling` lets a function make these calls in place of the blocks, `recording` keeps a record of
them.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class RecordedCall(NamedTuple):
    """One call of a block, or of another layer that is repeated.

    Attributes:
        layer: The layer.
        image: `(height, width)` of its input, each None where unknown; None without them.
        depth: int32 `[N]`, the number of updates; None for a layer that counts none.
        status: int32 `[N]`, a `keras_iterconv.unrolling.Status`; None likewise.
    """

    layer: Any
    image: tuple[int | None, int | None] | None
    depth: tf.Tensor | None
    status: tf.Tensor | None


# A function `(layer, args, kwargs)` that returns what the call of a layer returns.
Handler = Callable[[Any, tuple, Mapping[str, Any]], Any]


class _Active(threading.local):
    """The function that makes the calls of blocks in this thread; None where blocks do."""

    handler: Handler | None = None


_ACTIVE = _Active()


class CallRecord:
    """The calls of blocks since a record began, in their order.

    Blocks that a block calls in its own update are a part of it and are not recorded.

    Attributes:
        calls: A `RecordedCall` for each call.
    """

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        # None where operations run at once.
        self._graph = None if tf.executing_eagerly() else tf.constant(0).graph

    def add(self, layer: Any, inputs: Any, depth: Any = None, status: Any = None) -> None:
        """Add a call of a layer; the first tensor of `inputs` is its input.

        Raises:
            ValueError: The layer runs inside a loop, a branch or a function of its own, out of
                which its depth cannot be returned.
        """
        if depth is not None:
            graph = depth.graph if tf.is_symbolic_tensor(depth) else None
            if graph is not self._graph:
                raise ValueError(
                    f"The block {layer.name!r} is called inside a loop, a branch or a "
                    "`tf.function` of the model, where its number of updates cannot be read. Call "
                    "it in the `call` of a model or layer itself"
                )
        shapes = [tuple(z.shape) for z in keras.tree.flatten(inputs) if hasattr(z, "shape")]
        image = shapes[0][1:3] if shapes and len(shapes[0]) == 4 else None
        self.calls.append(RecordedCall(layer, image, depth, status))


@contextlib.contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Let a function make the calls of blocks in this thread until the context ends.

    Inside it, blocks run as ever: what a block calls in its own update is a part of it. It is also
    called for the other layers that are repeated or repeat.
    """
    outer = _ACTIVE.handler
    _ACTIVE.handler = handler
    try:
        yield
    finally:
        _ACTIVE.handler = outer


@contextlib.contextmanager
def recording() -> Iterator[CallRecord]:
    """Record the calls of blocks in this thread until the context ends."""
    record = CallRecord()
    with handling(lambda layer, args, kwargs: layer.call_recorded(record, *args, **kwargs)):
        yield record


@contextlib.contextmanager
def within_block() -> Iterator[Handler | None]:
    """Yield the function that makes the call of a block, None for the block itself."""
    outer = _ACTIVE.handler
    _ACTIVE.handler = None
    try:
        yield outer
    finally:
        _ACTIVE.handler = outer
