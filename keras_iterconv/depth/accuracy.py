"""Running a trained net at several depths."""

import math
from collections.abc import Iterable

import keras
import numpy as np

from keras_iterconv._support.batches import labelled_batches
from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.depth_model import processing_depth
from keras_iterconv.depth.depth_report import MIXED, DepthPoint, DepthReport
from keras_iterconv.depth.depth_settings import (
    DepthSettings,
    adjustable_blocks,
    apply_settings,
    read_settings,
)
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.metrics import is_wrong

# Per decade, about evenly spaced on a logarithmic axis.
_UNROLLS = (1, 2, 3, 5)
_FACTORS = (1000, 100, 10, 1, 0.1)


def accuracy_by_depth(
    model: keras.Model,
    dataset,
    max_unrolls: Iterable[int] | None = None,
    thresholds: Iterable[float | None] | None = None,
    samples: int | None = None,
) -> DepthReport:
    """Measure accuracy and cost of a trained net at several depths.

    All settings see each batch before the next one is read, so the data set is read once. In the
    meantime the model itself has these settings; at the end, and after an error or Ctrl-C, it has
    its own again.

    Args:
        model: A functional model of one output, logits or probabilities, with at least one
            `NAISConv2D` or `NAISDense`.
        dataset: Batches `(images, labels)`, e.g. a `tf.data.Dataset`; or one pair of arrays.
            Labels are class numbers, `[N]`, or one-hot or multi-hot, `[N, classes]`: an answer is
            then right where the largest outputs are just the targets.
        max_unrolls: Each is set in all blocks, which keep their thresholds. None for 1, 2, 3, 5,
            10, 20, ... up to the model's own.
        thresholds: Each is set in all blocks, which keep their `max_unroll`; None among them is
            the fixed depth. None in their place for 1000 times to a tenth of the model's own, and
            for none at all where it has none or several.
        samples: The number of images; the first ones are taken. None for all, of a data set that
            ends.

    Returns:
        A `DepthReport`.

    Raises:
        ValueError: The model has no such block, or one that is used twice or lies in a model
            within the model; a setting is out of its range; or the data set is empty, or
            has no end while `samples` is None.

    Example:
        >>> print(accuracy_by_depth(model, (images, labels), max_unrolls=[1, 3, 10]))
    """
    if samples is not None:
        check_positive_int("samples", samples)
    blocks = adjustable_blocks(model)
    own, fixed_depth = read_settings(blocks), processing_depth(model)
    if max_unrolls is None:
        max_unrolls = _default_max_unrolls(own)
    if thresholds is None:
        thresholds = _default_thresholds(own)
    run = TracedDepth(model)
    try:
        # All are set once first: what a block refuses is known before anything is measured.
        by_max_unroll, by_threshold = (
            [
                apply_settings(blocks, [block._replace(**{name: value}) for block in own])
                for value in _listed(f"{name}s", values)
            ]
            for name, values in (("max_unroll", max_unrolls), ("threshold", thresholds))
        )
        tallies = {settings: DepthTally() for settings in (own, *by_max_unroll, *by_threshold)}
        for images, labels in labelled_batches(dataset, samples):
            labels = np.asarray(labels)
            for settings, tally in tallies.items():
                apply_settings(blocks, settings)
                outputs = run(images)
                right = ~is_wrong(outputs[run.output], labels)
                tally.add(outputs["depth"], outputs["status"], right)
    finally:
        apply_settings(blocks, own)
    if not tallies[own].samples:
        raise ValueError("`dataset` must hold at least one image. Received: an empty one")
    points = {settings: _point(tally, settings, fixed_depth) for settings, tally in tallies.items()}
    return DepthReport(
        name=model.name,
        samples=tallies[own].samples,
        fixed_depth=fixed_depth,
        own=points[own],
        by_max_unroll=tuple(
            points[settings] for settings in sorted(set(by_max_unroll), key=_max_unroll)
        ),
        by_threshold=tuple(
            points[settings] for settings in sorted(set(by_threshold), key=_looseness)
        ),
    )


def _point(tally: DepthTally, settings: tuple[DepthSettings, ...], fixed_depth: int) -> DepthPoint:
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
    )


def _common(values):
    """Return what all values are, `"mixed"` where they differ."""
    return values[0] if len(set(values)) == 1 else MIXED


def _default_max_unrolls(own: tuple[DepthSettings, ...]) -> list[int]:
    limit = min(block.max_unroll for block in own)
    decades = (10**n for n in range(len(str(limit))))
    return [n * decade for decade in decades for n in _UNROLLS if n * decade < limit] + [limit]


def _default_thresholds(own: tuple[DepthSettings, ...]) -> list[float]:
    threshold = _common([block.threshold for block in own])
    return [] if threshold in (None, MIXED) else [threshold * factor for factor in _FACTORS]


def _listed(name: str, values) -> list:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"`{name}` must be a list of settings. Received: {name}={values!r}")
    return list(values)


def _max_unroll(settings: tuple[DepthSettings, ...]) -> int:
    return settings[0].max_unroll


def _looseness(settings: tuple[DepthSettings, ...]) -> float:
    """Order thresholds from the largest on, the fixed depth last."""
    threshold = settings[0].threshold
    return math.inf if threshold is None else -threshold
