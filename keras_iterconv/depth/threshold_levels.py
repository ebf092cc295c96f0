"""Stopping thresholds from the one where all samples stop at once to the one where none stops."""

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from keras_iterconv.depth.depth_settings import apply_settings
from keras_iterconv.depth.measurement import ModelSettings, all_adaptive
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.layers import IteratedBlock
from keras_iterconv.stop import StoppingRule

# Number of samples, from the first on, whose updates choose the thresholds. They are run some 40
# times, and the table needs no more precision than a few percent of the updates.
SAMPLES = 64
LEVELS = 7
# Largest number of runs that search the first threshold, one between, or the last.
_FIRST_RUNS, _LEVEL_RUNS, _LAST_RUNS = 8, 5, 4

# A search yields thresholds, and is sent the mean updates at each; it returns the levels.
_Search = Generator[float, float, list[float]]


def common_levels(
    run: TracedDepth,
    blocks: Sequence[IteratedBlock],
    own: ModelSettings,
    batches: Sequence[Any],
) -> list[ModelSettings]:
    """Return levels of one threshold for all blocks, the model's own among them if it has one.

    The arguments are those of `threshold_levels`.
    """
    every = range(len(blocks))
    levels = threshold_levels(run, blocks, own, batches, [every], [slice(None)])
    if all_adaptive(own) and len({settings.threshold for settings in own}) == 1:
        levels = sorted({*levels, own}, key=lambda each: looseness(blocks, each))
    return levels


def looseness(blocks: Sequence[IteratedBlock], settings: ModelSettings) -> float:
    """Return a sort key: from the threshold at which samples stop soonest on, then fixed depth."""
    threshold = settings[0].threshold
    if threshold is None:
        return math.inf
    return -threshold if blocks[0].stopping_rule.stops_below else threshold


def threshold_levels(
    run: TracedDepth,
    blocks: Sequence[IteratedBlock],
    own: ModelSettings,
    batches: Sequence[Any],
    groups: Sequence[Sequence[int]],
    columns: Sequence[Any],
) -> list[ModelSettings]:
    """Return settings from the loosest to the strictest thresholds, about evenly spread.

    The mean updates of the levels are about evenly spaced on a logarithmic axis, between the least
    number, at the strictest threshold at which all samples stop at once, and the largest, at the
    loosest at which none stops, or where the changes are of the size of rounding errors. They are
    found by runs of a few samples, since the input of a block depends on where those before stop.

    Args:
        run: The model's function; the settings of the blocks change.
        blocks: The adjustable blocks of the model.
        own: The settings of the blocks, of which `max_unroll` stays.
        batches: Inputs of the model, some batches.
        groups: Indices of the blocks that share a threshold; those of a group have one kind of
            rule.
        columns: The columns of `depth` that belong to each group, lists or slices.
    """

    def settings(thresholds):
        found = list(own)
        for group, threshold in zip(groups, thresholds, strict=True):
            for i in group:
                found[i] = own[i]._replace(threshold=threshold)
        return apply_settings(blocks, found)

    def updates(thresholds):
        settings(thresholds)
        depth = np.concatenate([run(inputs)["depth"] for inputs in batches])
        return [depth[:, own_columns].sum(axis=1).mean() for own_columns in columns]

    searches = []
    for group in groups:
        rule = blocks[group[0]].stopping_rule
        threshold = own[group[0]].threshold
        limit = max(own[i].max_unroll for i in group)
        searches.append(_search(rule, rule.threshold if threshold is None else threshold, limit))
    levels = _run_together(searches, updates)
    return list(dict.fromkeys(map(settings, zip(*levels, strict=True))))


def _run_together(
    searches: Sequence[_Search], updates: Callable[[Sequence[float]], Sequence[float]]
) -> list[list[float]]:
    """Return what the searches return: each run measures the next threshold of all of them."""
    thresholds = [next(search) for search in searches]
    levels: list[list[float]] = [[] for _ in searches]
    while not all(levels):
        measured = updates(thresholds)
        for i, search in enumerate(searches):
            if not levels[i]:
                try:
                    thresholds[i] = search.send(measured[i])
                except StopIteration as end:
                    levels[i] = end.value
    return levels


def _search(rule: StoppingRule, start: float, max_unroll: int) -> _Search:
    """Search the levels of one threshold; return `LEVELS` of them, equal ones where few differ.

    Args:
        rule: The stopping rule.
        start: Where to begin.
        max_unroll: The largest number of updates.
    """
    # A probability or a count of the model's own may be stricter than what is worth a measurement.
    known = {rule.loosest_threshold: (yield rule.loosest_threshold)}
    first = yield from _find_first(rule, start, max_unroll, known)
    last = rule.strictest_threshold(first, max_unroll)
    if last not in known:
        known[last] = yield last
    within = {t: known[t] for t in known if min(first, last) <= t <= max(first, last)}
    least, most = within[first], within[last]
    levels = [first]
    ratio = (max(most, least) / least) ** (1 / (LEVELS - 1))
    for level in range(1, LEVELS - 1):
        target = least * ratio**level
        for _ in range(_LEVEL_RUNS):
            if abs(math.log(within[_nearest(within, target)] / target)) <= math.log(ratio) / 4:
                break
            middle = _middle(rule, within, target)
            if middle is None:
                break
            within[middle] = yield middle
        levels.append(_nearest(within, target))
    for _ in range(_LAST_RUNS):
        middle = _middle(rule, within, most)
        if middle is None:
            break
        within[middle] = yield middle
    levels.append(next(t for t in _sorted(rule, within) if within[t] >= most))
    return levels


def _find_first(
    rule: StoppingRule, start: float, max_unroll: int, known: dict[float, float]
) -> Generator[float, float, float]:
    """Search the strictest threshold at which all samples stop at once, from the loose side.

    There a run is fast, while strict thresholds may take thousands of updates.
    """
    least = known[rule.loosest_threshold]
    first, then = rule.loosest_threshold, start
    if then not in known:
        known[then] = yield then
    while known[then] <= least:
        first, then = then, rule.strictest_threshold(then, max_unroll)
        if first == then:
            return first
        steps = [then]
        while len(steps) < 4 and (middle := rule.threshold_between(first, steps[-1])) is not None:
            steps.append(middle)
        for then in reversed(steps):
            if then not in known:
                known[then] = yield then
            if known[then] > least:
                break
            first = then
    for _ in range(_FIRST_RUNS):
        middle = rule.threshold_between(first, then)
        if middle is None:
            break
        known[middle] = yield middle
        first, then = (first, middle) if known[middle] > least else (middle, then)
    return first


def _nearest(known: dict[float, float], target: float) -> float:
    """Return the threshold whose updates differ from the target by the smallest factor."""
    return min(known, key=lambda threshold: abs(math.log(known[threshold] / target)))


def _middle(rule: StoppingRule, known: dict[float, float], target: float) -> float | None:
    """Return a threshold between the first one with as many updates and the one before it."""
    for looser, stricter in pairwise(_sorted(rule, known)):
        if known[stricter] >= target:
            return rule.threshold_between(looser, stricter)
    return None


def _sorted(rule: StoppingRule, thresholds: dict[float, float]) -> list[float]:
    """Return thresholds from the loosest on."""
    return sorted(thresholds, reverse=rule.stops_below)
