"""Changing the depth settings of a net that is built, trained or not."""

from collections.abc import Sequence
from types import EllipsisType
from typing import NamedTuple

import keras

from keras_iterconv.depth.block_calls import iterated_blocks
from keras_iterconv.layers import IteratedBlock


class DepthSettings(NamedTuple):
    """Depth settings of one block.

    Attributes:
        max_unroll: Number of updates, or the largest number where there is a threshold.
        threshold: 2-norm of an update below which a sample stops, or None for a fixed depth.
    """

    max_unroll: int
    threshold: float | None

    @property
    def is_adaptive(self) -> bool:
        """Whether each sample stops by itself."""
        return self.threshold is not None


def is_adaptive(model: keras.Model) -> bool:
    """Return whether some block of a model has a threshold."""
    return any(block.threshold is not None for block in iterated_blocks(model))


def set_depth(
    model: keras.Model,
    max_unroll: int | EllipsisType = ...,
    threshold: float | EllipsisType | None = ...,
) -> None:
    """Set the depth of all NAIS and `Iterate` blocks and tied stages of a net, trained or not.

    It takes effect at once, in compiled functions too, except where a block changes between fixed
    and adaptive depth: these need different graphs. Then the compiled functions of `model` are
    traced again at its next `fit`, `evaluate` or `predict`, so call it on the outermost model.
    Other models around the same blocks, and those that `with_depth` made before, keep their old
    graphs: make or compile them again. Other blocks of residual nets have no such settings and do
    not change.

    Args:
        model: Keras model with at least one `NAISConv2D`, `NAISDense`, `Iterate` or tied
            `ResidualStage`, in itself, in a model nested in it or in any of its layers.
        max_unroll: Number of updates of each block, or the largest number with a threshold. For
            untied blocks at most the number that they were built with. If left out, no
            `max_unroll` changes.
        threshold: 2-norm of an update below which a sample stops, or None for a fixed depth; of
            another stopping rule of an `Iterate`, its threshold. If left out, no threshold changes.

    Raises:
        ValueError: `model` is not a Keras model, has no such block, or a setting is invalid for a
            block; no setting is changed then.

    Example:
        >>> model = ki.create_model("nais_adaptive", (8, 8, 1), 10, blocks=2)
        >>> ki.set_depth(model, max_unroll=3)
        >>> [block.max_unroll for block in ki.iterated_blocks(model)]
        [3, 3, 3, 3, 3, 3]

    See also:
        `calibrate_depth`, which chooses the thresholds; `accuracy_by_depth`; `UnrollSchedule`, in
        training; `iterated_blocks`.
    """
    blocks = adjustable_blocks(model)
    before = read_settings(blocks)
    wanted = before
    if max_unroll is not ...:
        wanted = tuple(block._replace(max_unroll=max_unroll) for block in wanted)
    if threshold is not ...:
        wanted = tuple(block._replace(threshold=threshold) for block in wanted)
    try:
        apply_settings(blocks, wanted)
    except BaseException:
        apply_settings(blocks, before)
        raise
    trace_again(model, before, wanted)


def adjustable_blocks(model: keras.Model) -> list[IteratedBlock]:
    """Return the blocks of a model whose depth and gradient can be set.

    Raises:
        ValueError: `model` is not a Keras model, or has no such block.
    """
    blocks = [block for block in iterated_blocks(model) if block.adjustable]
    if not blocks:
        raise ValueError(
            "`model` must contain at least one block whose depth and gradient can be set, a NAIS "
            f"block for example. Received: model={model.name!r} without one; the depth "
            "of an untied residual stage is changed by its `schedule`"
        )
    return blocks


def read_settings(blocks: Sequence[IteratedBlock]) -> tuple[DepthSettings, ...]:
    """Return the settings of each block."""
    return tuple(DepthSettings(block.max_unroll, block.threshold) for block in blocks)


def apply_settings(
    blocks: Sequence[IteratedBlock], settings: Sequence[DepthSettings]
) -> tuple[DepthSettings, ...]:
    """Set each block's settings, and return the values that the blocks then have.

    Raises:
        ValueError: A setting is invalid for a block; the blocks before it have been changed.
    """
    for block, block_settings in zip(blocks, settings, strict=True):
        block.max_unroll = block_settings.max_unroll
        block.threshold = block_settings.threshold
    return read_settings(blocks)


def trace_again(
    model: keras.Model, before: Sequence[DepthSettings], after: Sequence[DepthSettings]
) -> None:
    """Let a model trace its own functions again where a block changed between fixed and adaptive.

    Args:
        model: The model.
        before: The settings of its blocks with which its functions were traced.
        after: Those that the blocks have now.
    """
    if kinds(before) == kinds(after):
        return
    for name in ("train", "test", "predict"):
        # A `fit` that is running continues with the new function.
        if getattr(model, f"{name}_function", None) is not None:
            getattr(model, f"make_{name}_function")(force=True)


def kinds(settings: Sequence[DepthSettings]) -> tuple[bool, ...]:
    """Return whether each block's depth is fixed: the graphs of fixed and adaptive depth differ."""
    return tuple(not block_settings.is_adaptive for block_settings in settings)
