"""Measuring a net at several depth settings."""

import math
from collections.abc import Iterable, Sequence

from keras_iterconv._support.batches import check_not_empty
from keras_iterconv.depth.depth_report import MIXED, DepthPoint
from keras_iterconv.depth.depth_settings import DepthSettings, apply_settings
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.layers import IteratedBlock
from keras_iterconv.tasks import is_wrong

# The settings of all adjustable blocks of a model.
ModelSettings = tuple[DepthSettings, ...]


def tally_settings(
    run: TracedDepth,
    blocks: Sequence[IteratedBlock],
    batches: Iterable,
    settings: Iterable[ModelSettings],
) -> dict[ModelSettings, DepthTally]:
    """Return the counts of each setting; the data are read once.

    Args:
        run: The model's function; the settings of the blocks change.
        blocks: The adjustable blocks of the model.
        batches: Batches `(images, labels)`.
        settings: The settings; the first one is the reference, to which the others are compared.

    Raises:
        ValueError: There is no sample, or the labels do not fit the outputs.
    """
    tallies = {each: DepthTally() for each in settings}
    reference, *_ = tallies
    for images, labels in batches:
        expected = None
        for each, tally in tallies.items():
            apply_settings(blocks, each)
            outputs = run(images)
            right = ~is_wrong(outputs[run.output], labels)
            tally.add(outputs["depth"], outputs["status"], right, expected)
            expected = right if expected is None else expected
    check_not_empty(tallies[reference].samples)
    return tallies


def depth_point(
    tally: DepthTally, settings: ModelSettings, fixed_depth: int, seconds: float | None = None
) -> DepthPoint:
    """Return the point of a report.

    Args:
        tally: The counts at the settings.
        settings: The settings.
        fixed_depth: The largest number of updates of an image.
        seconds: The time of an image, where it was measured.
    """
    max_unroll, threshold = (_common(values) for values in zip(*settings, strict=True))
    return DepthPoint(
        max_unroll=max_unroll,
        threshold=threshold,
        accuracy=tally.accuracy,
        standard_error=math.sqrt(tally.accuracy * (1 - tally.accuracy) / tally.samples),
        updates=tally.updates,
        share_of_fixed_depth=tally.updates / fixed_depth,
        share_at_limit=tally.share_at_limit,
        share_not_finite=tally.share_not_finite,
        updates_standard_error=tally.updates_standard_error,
        seconds=seconds,
    )


def _common(values):
    """Return the common value of all values, or `"mixed"` if they differ."""
    return values[0] if len(set(values)) == 1 else MIXED


def thresholds_of(settings: ModelSettings) -> tuple[float, ...]:
    """Return the thresholds of the blocks that have one."""
    return tuple(block.threshold for block in settings if block.threshold is not None)


def all_adaptive(settings: ModelSettings) -> bool:
    """Return whether all blocks have a threshold."""
    return all(block.is_adaptive for block in settings)


def have_one_rule(blocks: Sequence[IteratedBlock]) -> bool:
    """Return whether one threshold has the same meaning in all blocks."""
    return len({type(block.stopping_rule) for block in blocks}) == 1
