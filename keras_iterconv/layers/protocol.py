"""The interface of blocks for depth, certificates, indices and exporters.

Code outside `keras_iterconv.layers` uses the attributes and methods below, and does not test for
classes of blocks. A block of one's own overrides what differs from the defaults.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv.layers.call_record import CallRecord, within_block
from keras_iterconv.layers.rules.rows import BlockRow, FreeRow
from keras_iterconv.unrolling import Unrolled

# `(height, width)` of an input; None for an input without them.
ImageSize = tuple[int | None, int | None] | None


class NoBoundError(Exception):
    """There is no Lipschitz bound by the known rules; the message is the reason."""


class IterationLayer:
    """Mixin for the Keras layers that repeat a function, or that are repeated.

    It says what certificates and exporters ask. A rule, which is `certificate_rows` or
    `lipschitz_gain`, holds for exactly the class in whose body it is defined, since a subclass may
    compute anything. A subclass for which it holds too defines it again, and may call `super()`.

    Attributes:
        bound_norm: The norm in which the layer has its bound: `"2"`, or `"infinity"`, which then is
            the norm for the whole net.
        folds: Whether exporters write a copy of the layer with folded weights, which
            `folded_config` and `assign_folded` make.
    """

    name: str
    bound_norm: str = "2"
    folds: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer, or let the function of `call_record.handling` make the call."""
        with within_block() as handler:
            if handler is None or _is_symbolic(args):
                return super().__call__(*args, **kwargs)  # type: ignore[misc]
            return handler(self, args, kwargs)

    def call_recorded(self, record: CallRecord, *args: Any, **kwargs: Any) -> Any:
        """Call the layer, and add the call to a record."""
        record.add(self, (args, kwargs))
        return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def certificate_rows(self, image: ImageSize) -> list[BlockRow]:
        """Return the rows of the layer in a stability report, one or one for each of its blocks.

        Args:
            image: `(height, width)` of the layer's input; None for an input without them.

        Raises:
            ValueError: The height or width is unknown, and the norm depends on it.
        """
        return [
            FreeRow(
                name=self.name,
                kind=type(self).__name__,
                holds=False,
                reason="a block without rules: no theorem covers it",
            )
        ]

    def lipschitz_gain(
        self,
        gains: Sequence[float],
        norm: str,
        rows: Sequence[BlockRow],
        options: Mapping[str, Any],
    ) -> float:
        """Return a Lipschitz bound from the net's input to the layer's output, in evaluation.

        Args:
            gains: The bounds from the net's input to each input of the layer.
            norm: The norm of all tensors, `"2"` or `"infinity"`.
            rows: The rows of the layer for this input.
            options: The options of the call, such as `schedule`.

        Raises:
            NoBoundError: There is no bound in this norm.
        """
        raise NoBoundError(f"no rule for the block {self.name!r}, a {type(self).__name__}")

    def folded_config(self) -> dict[str, Any]:
        """Return the configuration of the copy of this layer that exporters write."""
        return self.get_config()  # type: ignore[attr-defined]

    def assign_folded(self, original: Any) -> None:
        """Assign the weights of the original to this copy, folded where that saves operations.

        Args:
            original: The layer that `folded_config` described.
        """
        self.set_weights(original.get_weights())  # type: ignore[attr-defined]


class Block(IterationLayer):
    """Mixin for Keras layers that update a state and count the updates.

    The defaults are those of a block of one update. `call` must have an argument `return_depth`,
    and return an `Unrolled` where it is true.

    Attributes:
        max_unroll: The largest number of updates in one call.
        threshold: The stopping threshold, in units of the state; None for a fixed depth.
        adjustable: Whether `max_unroll`, `threshold` and `gradient` can be set, as those of an
            `IteratedBlock`. `depth_variables` then returns the variables that graphs read.
        scheduled: Whether `call` has an argument `schedule`, a sequence of numbers of updates, and
            the block a method `update(state, inputs, k)` that makes update k, as a `ResidualStage`
            has. The measurement of indices needs both.
        adds_change: Whether the block repeats its `build_update(inputs)`, as an `IteratedBlock`
            does, from `make_initial_state(inputs)` on: on a state of one tensor, until the norm of
            the change is below the threshold. Exporters to ONNX write it by their own
            loops, and ask for its `solver` and `initial_state` too. The loops of others are
            converted as TensorFlow has them.
        channels_first: Whether the block can be exported with inputs and outputs
            `[N, channels, height, width]`, the layout of ONNX's convolutions.
    """

    max_unroll: int = 1
    threshold: float | None = None
    adjustable: bool = False
    scheduled: bool = False
    adds_change: bool = False
    channels_first: bool = False

    def call_recorded(self, record: CallRecord, *args: Any, **kwargs: Any) -> Any:
        wanted = kwargs.pop("return_depth", False)
        unrolled = self(*args, **kwargs, return_depth=True)
        record.add(self, (args, kwargs), unrolled.depth, unrolled.status)
        return unrolled if wanted else unrolled.state

    def run_to(
        self,
        inputs: Any,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None = None,
        **options: Any,
    ) -> Unrolled:
        """Return the result of an evaluation at another depth, without changing the block.

        Args:
            inputs: The inputs of `call`.
            max_unroll: The largest number of updates, from 1 to the block's `max_unroll`; an int
                or, for an adjustable block, an int32 scalar.
            threshold: The stopping threshold; not read if that of the block is None.
            **options: Other arguments of `call`.

        Returns:
            An `Unrolled`.
        """
        return self(inputs, **options, return_depth=True)


def _is_symbolic(args: Any) -> bool:
    return any(isinstance(tensor, keras.KerasTensor) for tensor in keras.tree.flatten(args))


def is_block(layer: object) -> bool:
    """Return whether a layer counts updates."""
    return isinstance(layer, Block)


def is_iteration_layer(layer: object) -> bool:
    """Return whether a layer repeats a function or is repeated."""
    return isinstance(layer, IterationLayer)


def has_rule(layer: keras.layers.Layer, name: str) -> bool:
    """Return whether the very class of a layer defines a rule, `IterationLayer` says which."""
    return name in vars(type(layer))


def rule_of(layer: IterationLayer, name: str) -> Callable:
    """Return a rule of the very class of a layer, else the default, as a function of the layer."""
    return getattr(type(layer) if has_rule(layer, name) else IterationLayer, name)


def rows_of(layer: IterationLayer, image: ImageSize) -> list[BlockRow]:
    """Return the rows of a layer: by its rule, or one that says that there is none."""
    rows = rule_of(layer, "certificate_rows")(layer, image)
    if not rows:
        raise ValueError(
            f"`certificate_rows` of {type(layer).__name__} must return at least one row. "
            f"Received: {rows!r}"
        )
    return rows
