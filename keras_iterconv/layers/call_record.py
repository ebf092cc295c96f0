"""A record of the calls of blocks while a model runs, in whatever Python code it calls them."""

import contextlib
import threading
from collections.abc import Iterator
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


class _Active(threading.local):
    """The record that this thread writes; None where nothing is recorded."""

    record: "CallRecord | None" = None


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
def recording() -> Iterator[CallRecord]:
    """Record the calls of blocks in this thread until the context ends."""
    outer, record = _ACTIVE.record, CallRecord()
    _ACTIVE.record = record
    try:
        yield record
    finally:
        _ACTIVE.record = outer


@contextlib.contextmanager
def within_block() -> Iterator[CallRecord | None]:
    """Yield the record of the calls around a block, None without one; inside it none is written."""
    outer = _ACTIVE.record
    _ACTIVE.record = None
    try:
        yield outer
    finally:
        _ACTIVE.record = outer
