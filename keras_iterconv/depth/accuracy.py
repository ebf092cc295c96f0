"""Accuracy of a trained net at several depths."""

import math
from collections.abc import Iterable
from typing import Any

import keras

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
from keras_iterconv.tasks import is_wrong

# Default values in each decade, about evenly spaced on a logarithmic axis.
_UNROLLS = (1, 2, 3, 5)
_FACTORS = (1000, 100, 10, 1, 0.1)


def accuracy_by_depth(
    model: keras.Model,
    dataset: Any,
    max_unrolls: Iterable[int] | None = None,
    thresholds: Iterable[float | None] | None = None,
    samples: int | None = None,
) -> DepthReport:
    """Return accuracy and mean number of updates of a trained net at several depths.

    The data set is read once: each batch runs at all settings. During the call the settings of the
    model itself change. They are restored at the end, and after an error or Ctrl-C.

    Args:
        model: Keras model of logits or probabilities with at least one `NAISConv2D`, `NAISDense` or
            `Iterate`, in itself, in a model nested in it or in any of its layers.
        dataset: Batches `(images, labels)`, e.g. a `tf.data.Dataset`; or one pair of arrays, or of
            dicts of arrays for several inputs or outputs. Of several outputs those are judged that
            have labels, and a prediction is correct where it is correct in all of them.
            Labels are class numbers, `[N]`; or one-hot or multi-hot, `[N, classes]`: a prediction
            is then correct where the n largest outputs are those of the n labelled classes; or
            class numbers, `[N, positions]`, for outputs `[N, positions, classes]`: a prediction is
            then correct where it is correct at all positions.
        max_unrolls: Values of `max_unroll`, each set in all blocks; their thresholds do not change.
            None for 1, 2, 3, 5, 10, 20, ... up to the smallest `max_unroll` of the blocks.
        thresholds: Values of `threshold`, each set in all blocks; their `max_unroll` does not
            change. A value of None is the fixed depth. None in place of the list for 1000, 100,
            10, 1 and 0.1 times the model's threshold, or no values if its blocks have no
            threshold, different ones, or another stopping rule than the norm of the update.
        samples: Number of images, from the first on. None for all images of a finite data set.

    Returns:
        A `DepthReport`.

    Raises:
        ValueError: The model has no such block, or `with_depth` does not accept it; a setting is
            out of its range; the labels do not fit the outputs, or are those of a regression; or
            the data set is empty, or is infinite while `samples` is None.

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
        norms = all(block.threshold_is_norm for block in blocks)
        thresholds = _default_thresholds(own) if norms else []
    run = TracedDepth(model)
    try:
        # All settings are applied once first, so an invalid one raises before anything is measured.
        by_max_unroll, by_threshold = (
            [
                apply_settings(blocks, [block._replace(**{name: value}) for block in own])
                for value in _listed(f"{name}s", values)
            ]
            for name, values in (("max_unroll", max_unrolls), ("threshold", thresholds))
        )
        tallies = {settings: DepthTally() for settings in (own, *by_max_unroll, *by_threshold)}
        for images, labels in labelled_batches(dataset, samples):
            for settings, tally in tallies.items():
                apply_settings(blocks, settings)
                outputs = run(images)
                right = ~is_wrong(outputs[run.output], labels)
                tally.add(outputs["depth"], outputs["status"], right)
    finally:
        apply_settings(blocks, own)
    if not tallies[own].samples:
        raise ValueError("`dataset` must hold at least one image. Received: an empty data set")
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
    """Return the common value of all values, or `"mixed"` if they differ."""
    return values[0] if len(set(values)) == 1 else MIXED


def _default_max_unrolls(own: tuple[DepthSettings, ...]) -> list[int]:
    limit = min(block.max_unroll for block in own)
    decades = (10**n for n in range(len(str(limit))))
    return [n * decade for decade in decades for n in _UNROLLS if n * decade < limit] + [limit]


def _default_thresholds(own: tuple[DepthSettings, ...]) -> list[float]:
    threshold = _common([block.threshold for block in own])
    return [] if threshold in (None, MIXED) else [threshold * factor for factor in _FACTORS]


def _listed(name: str, values: Any) -> list:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"`{name}` must be a list of values. Received: {name}={values!r}")
    return list(values)


def _max_unroll(settings: tuple[DepthSettings, ...]) -> int:
    return settings[0].max_unroll


def _looseness(settings: tuple[DepthSettings, ...]) -> float:
    """Return a sort key: thresholds from the largest on, then the fixed depth."""
    threshold = settings[0].threshold
    return math.inf if threshold is None else -threshold
