"""Accuracy of a trained net at several depths."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_iterconv._support.batches import labelled_batches, read_ahead
from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.depth_model import processing_depth
from keras_iterconv.depth.depth_report import DepthReport
from keras_iterconv.depth.depth_settings import adjustable_blocks, apply_settings, read_settings
from keras_iterconv.depth.measurement import (
    ModelSettings,
    depth_point,
    have_one_rule,
    tally_settings,
)
from keras_iterconv.depth.threshold_levels import SAMPLES, common_levels, looseness
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.layers import IteratedBlock

# Default values of `max_unroll` in each decade, about evenly spaced on a logarithmic axis.
_UNROLLS = (1, 2, 3, 5)


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
            change. A value of None is the fixed depth. None in place of the list for
            the model's own threshold and seven others, from the one at which all images stop after
            their first update to the one at which none stops: they are chosen by runs of the first
            64 images such that the mean updates differ by about the same factor. No values where
            the blocks have stopping rules of several kinds.
        samples: Number of images, from the first on. None for all images of a finite data set.

    Returns:
        A `DepthReport`.

    Raises:
        ValueError: The model has no such block, or `with_depth` does not accept it; a setting is
            out of its range; the labels do not fit the outputs, or are those of a regression; or
            the data set is empty, or is infinite while `samples` is None.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=20, step_size=0.5)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
        >>> labels = model.predict(inputs, verbose=0).argmax(-1)  # right at full depth
        >>> report = ki.accuracy_by_depth(
        ...     model, (inputs, labels), max_unrolls=[1, 5, 20], thresholds=[]
        ... )
        >>> [(point.updates, point.accuracy) for point in report.by_max_unroll]
        [(1.0, 0.9375), (5.0, 0.96875), (20.0, 1.0)]

    See also:
        `DepthReport`; `plot_accuracy_by_depth`; `calibrate_depth`, which sets the depth for a
        budget.
    """
    if samples is not None:
        check_positive_int("samples", samples)
    blocks = adjustable_blocks(model)
    own, fixed_depth = read_settings(blocks), processing_depth(model)
    if max_unrolls is None:
        max_unrolls = _default_max_unrolls(own)
    run = TracedDepth(model)
    try:
        # All settings are applied once first, so an invalid one raises before anything is measured.
        by_max_unroll, by_threshold = (
            [
                apply_settings(blocks, [block._replace(**{name: value}) for block in own])
                for value in _listed(f"{name}s", values)
            ]
            for name, values in (("max_unroll", max_unrolls), ("threshold", thresholds or []))
        )
        batches = labelled_batches(dataset, samples)
        if thresholds is None and have_one_rule(blocks):
            head, batches = read_ahead(batches, SAMPLES)
            by_threshold = _default_thresholds(run, blocks, own, head)
        tallies = tally_settings(run, blocks, batches, (own, *by_max_unroll, *by_threshold))
    finally:
        apply_settings(blocks, own)
    points = {each: depth_point(tally, each, fixed_depth) for each, tally in tallies.items()}
    return DepthReport(
        name=model.name,
        samples=tallies[own].samples,
        fixed_depth=fixed_depth,
        own=points[own],
        by_max_unroll=tuple(points[each] for each in sorted(set(by_max_unroll), key=_max_unroll)),
        by_threshold=tuple(
            points[each]
            for each in sorted(set(by_threshold), key=lambda each: looseness(blocks, each))
        ),
    )


def _default_max_unrolls(own: ModelSettings) -> list[int]:
    limit = min(block.max_unroll for block in own)
    decades = (10**n for n in range(len(str(limit))))
    return [n * decade for decade in decades for n in _UNROLLS if n * decade < limit] + [limit]


def _default_thresholds(
    run: TracedDepth, blocks: Sequence[IteratedBlock], own: ModelSettings, head: Sequence
) -> list[ModelSettings]:
    """Return thresholds of all blocks; none where the number of updates depends on none."""
    if not head:
        return []
    levels = common_levels(run, blocks, own, head)
    return levels if len(levels) > 1 else []


def _listed(name: str, values: Any) -> list:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"`{name}` must be a list of values. Received: {name}={values!r}")
    return list(values)


def _max_unroll(settings: ModelSettings) -> int:
    return settings[0].max_unroll
