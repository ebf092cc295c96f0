"""The depth of a net that is built and perhaps trained, set to another one."""

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_iterconv._support.keras_graph import check_functional
from keras_iterconv.depth.depth_model import iterated_blocks
from keras_iterconv.layers import IteratedBlock


class DepthSettings(NamedTuple):
    """How deep one block goes.

    Attributes:
        max_unroll: The number of updates, or the largest number where there is a threshold.
        threshold: The norm below which an update counts as none, or None for a fixed depth.
    """

    max_unroll: int
    threshold: float | None

    @property
    def is_adaptive(self) -> bool:
        """Whether each sample stops by itself."""
        return self.threshold is not None


def is_adaptive(model: keras.Model) -> bool:
    """Return whether some block of a functional model has a threshold."""
    return any(block.threshold is not None for block in iterated_blocks(model))


def set_depth(model: keras.Model, max_unroll: int = ..., threshold: float | None = ...) -> None:
    """Set the depth of all NAIS blocks of a net, trained or not.

    It takes effect at once, in compiled functions too. Where a threshold appears or disappears,
    the model's own compiled functions are made anew, so that its next `fit`, `evaluate` or
    `predict` traces them anew; what else was traced over its blocks before, a view of
    `with_depth` say, must be made anew by hand. Blocks of residual nets have no such settings and
    stay as they are.

    Args:
        model: A functional model with at least one `NAISConv2D` or `NAISDense`.
        max_unroll: The number of updates of each block, or the largest number; for untied blocks
            at most as many as they were made with. Left out, each block keeps its own.
        threshold: The 2-norm below which a sample's update counts as none, or None for a fixed
            depth. Left out, each block keeps its own.

    Raises:
        ValueError: The model is not functional, or has no such block, or a block refuses a
            setting; nothing is changed then.

    Example:
        >>> model = create_model("nais_adaptive", (8, 8, 1), 10)
        >>> set_depth(model, max_unroll=3)
        >>> processing_depth(model)
        162
    """
    blocks = adjustable_blocks(model)
    before = read_settings(blocks)
    wanted = before
    if max_unroll is not ...:
        wanted = [block._replace(max_unroll=max_unroll) for block in wanted]
    if threshold is not ...:
        wanted = [block._replace(threshold=threshold) for block in wanted]
    try:
        apply_settings(blocks, wanted)
    except BaseException:
        apply_settings(blocks, before)
        raise
    if kinds(before) != kinds(wanted):
        for name in ("train", "test", "predict"):
            # A `fit` that is running goes on with the new one.
            if getattr(model, f"{name}_function", None) is not None:
                getattr(model, f"make_{name}_function")(force=True)


def adjustable_blocks(model: keras.Model) -> list[IteratedBlock]:
    """Return the NAIS blocks of a functional model, whose depth and gradient can be set.

    Raises:
        ValueError: There is none, or the model is not functional.
    """
    check_functional(model)
    blocks = [block for block in iterated_blocks(model) if isinstance(block, IteratedBlock)]
    if not blocks:
        raise ValueError(
            "`model` must hold at least one block whose depth and gradient can be set "
            f"(NAISConv2D or NAISDense); {model.name!r} has none. A ResidualStage is read out "
            "early by its `schedule`."
        )
    return blocks


def read_settings(blocks: Sequence[IteratedBlock]) -> tuple[DepthSettings, ...]:
    """Return the settings of each block."""
    return tuple(DepthSettings(block.max_unroll, block.threshold) for block in blocks)


def apply_settings(
    blocks: Sequence[IteratedBlock], settings: Sequence[DepthSettings]
) -> tuple[DepthSettings, ...]:
    """Set each block's settings, and return them as the blocks took them.

    Raises:
        ValueError: A block refuses its own; those before it are set by then.
    """
    for block, own in zip(blocks, settings, strict=True):
        block.max_unroll = own.max_unroll
        block.threshold = own.threshold
    return read_settings(blocks)


def kinds(settings: Sequence[DepthSettings]) -> tuple[bool, ...]:
    """Say for each block whether its depth is fixed: another kind is another graph."""
    return tuple(not own.is_adaptive for own in settings)
