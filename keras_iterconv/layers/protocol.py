"""The interface of a block for depth, exporters and reports, common to all classes of blocks."""

from typing import Any

from keras_iterconv.unrolling import Unrolled


class Block:
    """Mixin for Keras layers that update a state and count the updates.

    Code outside `keras_iterconv.layers` uses the attributes below and does not test for classes of
    blocks. The defaults are those of a block of one update. `call` must have an argument
    `return_depth`, and return an `Unrolled` where it is true.

    Attributes:
        max_unroll: The largest number of updates in one call.
        threshold: The stopping threshold, in units of the state; None for a fixed depth.
        adjustable: Whether `max_unroll`, `threshold` and `gradient` can be set, as those of an
            `IteratedBlock`. `depth_variables` then returns the variables that graphs read.
        scheduled: Whether `call` has an argument `schedule`, a sequence of numbers of updates, as
            that of a `ResidualStage` has. The measurement of indices needs it.
        channels_first: Whether the block can be exported with inputs and outputs
            `[N, channels, height, width]`, the layout of ONNX's convolutions.
    """

    max_unroll: int = 1
    threshold: float | None = None
    adjustable: bool = False
    scheduled: bool = False
    channels_first: bool = False

    def run_to(
        self, inputs: Any, max_unroll: Any, threshold: Any = None, **options: Any
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


def is_block(layer: object) -> bool:
    """Return whether a layer counts updates."""
    return isinstance(layer, Block)
