"""Stopping thresholds that meet a budget of accuracy or of updates on validation data."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_iterconv._support.batches import check_not_empty, labelled_batches, read_ahead
from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.block_calls import block_calls
from keras_iterconv.depth.budget import Budget, make_budget
from keras_iterconv.depth.depth_model import processing_depth
from keras_iterconv.depth.depth_report import DepthReport
from keras_iterconv.depth.depth_settings import (
    adjustable_blocks,
    apply_settings,
    read_settings,
    trace_again,
)
from keras_iterconv.depth.effect_path import effect_path
from keras_iterconv.depth.measurement import (
    ModelSettings,
    all_adaptive,
    depth_point,
    have_one_rule,
    tally_settings,
    thresholds_of,
)
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.depth.threshold_levels import SAMPLES, common_levels, threshold_levels
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.layers import IteratedBlock

# Number of times that the interval around the best threshold is halved in one pass over the data.
_HALVINGS = 2
# Number of settings of a path with a threshold for each block that are measured at first.
_STEPS = 13
# Difference of mean updates, in standard errors and relative, below which thresholds are equal.
_STANDARD_ERRORS, _RELATIVE = 0.5, 0.01
# Number of timed runs of each setting, and the largest number of images in one.
_ROUNDS, _TIMED = 5, 256


def calibrate_depth(
    model: keras.Model,
    dataset: Any,
    accuracy_loss: float | None = None,
    mean_updates: float | None = None,
    per_block: bool = False,
    samples: int | None = None,
) -> DepthReport:
    """Set the stopping thresholds of a trained net such that it meets a budget.

    Within a budget of accuracy the fewest updates are chosen; within a budget of updates the most,
    unless fewer are more accurate by more than a standard error. The measured value plus two
    standard errors meets the budget, so that other data of the same kind nearly always meet it
    within one. Few data cannot show a small loss: the model then keeps thresholds of its own, which
    lose nothing, and a model of fixed depth gets an error.

    Blocks of fixed depth stop adaptively afterwards; `max_unroll` does not change. Call it on the
    outermost model, as `set_depth`: only its compiled functions are traced again where blocks
    change from fixed to adaptive depth. Other models around the same blocks, and those that
    `with_depth` made before, keep their old graphs.

    The data are read some three to seven times. The net runs at eight or nine settings the first
    time, with `per_block` at up to 22, and at three or four later. Before that the thresholds are
    found by some 40 runs of a few samples, with `per_block` by up to six more for each block.

    Args:
        model: As in `accuracy_by_depth`.
        dataset: Validation data as in `accuracy_by_depth`; not those that the accuracy is later
            stated on. An iterator, which can be read only once, is kept in memory.
        accuracy_loss: The largest loss of accuracy, a share in [0, 1): 0.005 for half a percentage
            point. It is counted from the accuracy at the model's settings before the call.
        mean_updates: The largest mean number of updates of an image, in all blocks together. Give
            one of the two budgets.
        per_block: Whether each block gets a threshold of its own: from the strictest on, the block
            stops earlier next whose earlier stop moves the outputs least for each update saved.
            Where one for all blocks is as good on these data, all get that one. Different
            thresholds that the model has before are kept where they are the best for a budget of
            accuracy, whatever is given here.
        samples: As in `accuracy_by_depth`.

    Returns:
        A `DepthReport` with accuracy, updates and time at the new settings (`own`) and at those
        before (`before`), and all measured settings (`by_threshold`).

    Raises:
        ValueError: As in `accuracy_by_depth`; or not exactly one budget is given, or it is out of
            its range; or no threshold meets it, and the message says the nearest; or the blocks
            have stopping rules of several kinds and `per_block` is false. No setting is changed
            then, nor after any other error.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=50, step_size=0.5)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
        >>> labels = model.predict(inputs, verbose=0).argmax(-1)  # right at full depth
        >>> report = ki.calibrate_depth(model, (inputs, labels), mean_updates=20)
        >>> report.before.updates, report.own.updates < 20, report.own.accuracy > 0.9
        (50.0, True, True)
        >>> block.threshold is None
        False

    See also:
        `set_depth`, for thresholds of your own; `accuracy_by_depth`; `DepthReport`.
    """
    if samples is not None:
        check_positive_int("samples", samples)
    budget = make_budget(accuracy_loss, mean_updates)
    blocks = adjustable_blocks(model)
    if not (per_block or have_one_rule(blocks)):
        rules = sorted({type(block.stopping_rule).__name__ for block in blocks})
        raise ValueError(
            "`per_block` must be True for blocks whose thresholds differ in kind: those of "
            f"{model.name!r} stop by {' and '.join(rules)}. Received: per_block={per_block}"
        )
    before = read_settings(blocks)
    search = _Search(model, blocks, _repeatable(dataset, samples), budget)
    try:
        chosen = search.choose(per_block)
        seconds = search.time([before, chosen])
    except BaseException:
        apply_settings(blocks, before)
        raise
    apply_settings(blocks, chosen)
    trace_again(model, before, chosen)
    return search.report(before, chosen, seconds)


def _repeatable(dataset: Any, samples: int | None) -> Callable[[], Iterator]:
    """Return a function that reads the data from the start."""
    if isinstance(dataset, Iterator):
        kept = list(labelled_batches(dataset, samples))
        return lambda: iter(kept)
    return lambda: labelled_batches(dataset, samples)


def _thinned(path: list[ModelSettings], count: int) -> list[ModelSettings]:
    """Return at most `count` settings of a path, its ends among them."""
    places = np.linspace(0, len(path) - 1, min(count, len(path))).round().astype(int)
    return [path[place] for place in places]


class _Search:
    """The search for the settings that meet a budget.

    Args:
        model: The model; the settings of its blocks change.
        blocks: Its adjustable blocks.
        read: A function that reads the data from the start.
        budget: The budget.
    """

    def __init__(
        self,
        model: keras.Model,
        blocks: Sequence[IteratedBlock],
        read: Callable[[], Iterator],
        budget: Budget,
    ):
        self.model, self.blocks, self.read, self.budget = model, blocks, read, budget
        self.run = TracedDepth(model)
        self.own = read_settings(blocks)
        self._between = [block.stopping_rule.threshold_between for block in blocks]
        self.tallies: dict[ModelSettings, DepthTally] = {}
        self.levels: list[ModelSettings] = []
        # All settings of the path with a threshold for each block.
        self._fine: list[ModelSettings] = []

    def choose(self, per_block: bool) -> ModelSettings:
        """Return the best settings within the budget.

        Raises:
            ValueError: There are none, or no data.
        """
        head, _ = read_ahead(self.read(), SAMPLES)
        check_not_empty(len(head))
        # Ways from loose to strict thresholds.
        paths = []
        if have_one_rule(self.blocks):
            paths.append(common_levels(self.run, self.blocks, self.own, head))
        if per_block:
            groups = [[i] for i in range(len(self.blocks))]
            columns = [self._columns(block) for block in self.blocks]
            levels = threshold_levels(self.run, self.blocks, self.own, head, groups, columns)
            self._fine = effect_path(self.run, self.blocks, levels, head)
            paths.append(_thinned(self._fine, _STEPS))
        # The model's own thresholds lose nothing, however few the data are.
        if all_adaptive(self.own) and (per_block or self.budget.compares):
            paths.append([self.own])
        self.measure(each for path in paths for each in path)
        self.levels = paths[0]
        found = [best for path in paths if (best := self._best_on(path)) is not None]
        if not found:
            candidates = dict.fromkeys(each for path in paths for each in path)
            raise ValueError(self.budget.unmet([self.tallies[each] for each in candidates]))
        return min(found, key=lambda each: self.budget.cost(self.tallies[each]))

    def _columns(self, block: IteratedBlock) -> list[int]:
        return [i for i, call in enumerate(block_calls(self.model)) if call.block is block]

    def measure(self, settings: Iterable[ModelSettings]) -> None:
        """Measure settings that were not measured before, all in one pass over the data."""
        new = [each for each in dict.fromkeys(settings) if each not in self.tallies]
        if new:
            # To compare with the model's own settings, they are run in each pass: the order of the
            # data may have changed.
            again = self.budget.compares or self.own not in self.tallies
            wanted = dict.fromkeys([*([self.own] if again else []), *new])
            self.tallies |= tally_settings(self.run, self.blocks, self.read(), wanted)

    def _best_on(self, path: list[ModelSettings]) -> ModelSettings | None:
        """Return the best settings on a path from loose to strict ones; None if none are good.

        The path is refined between the best settings and the next ones, which exceed the budget.
        """
        while True:
            good, bad = self.budget.border([self.tallies[each] for each in path])
            if good is None and self.budget.starts_loose and path[0] != self._loosest():
                path = [self._loosest(), *path]
                self.measure(path)
                continue
            if good is None or bad is None:
                return None if good is None else path[good]
            place = max(good, bad)
            ends = path[place - 1], path[place]
            new = [] if self._alike(*ends) else self._between_ends(*ends)
            if not new:
                return path[good]
            self.measure(new)
            path = [*path[:place], *new, *path[place:]]

    def _loosest(self) -> ModelSettings:
        return tuple(
            settings._replace(threshold=block.stopping_rule.loosest_threshold)
            for block, settings in zip(self.blocks, self.own, strict=True)
        )

    def _between_ends(self, first: ModelSettings, second: ModelSettings) -> list[ModelSettings]:
        """Return some settings between two of a path: its own, where it has any."""
        if first in self._fine and second in self._fine:
            inner = self._fine[self._fine.index(first) + 1 : self._fine.index(second)]
            if inner:
                return _thinned(inner, 2**_HALVINGS - 1)
        return self._subdivide(first, second, _HALVINGS)

    def _subdivide(
        self, first: ModelSettings, second: ModelSettings, halvings: int
    ) -> list[ModelSettings]:
        """Return settings between two others, at most 2 ** halvings - 1, in their order."""
        # A block whose thresholds are too close keeps the first.
        middle = tuple(
            settings._replace(threshold=between(a, b) or a)
            for settings, between, a, b in zip(
                first, self._between, thresholds_of(first), thresholds_of(second), strict=True
            )
        )
        if not halvings or middle in (first, second):
            return []
        before = self._subdivide(first, middle, halvings - 1)
        return [*before, middle, *self._subdivide(middle, second, halvings - 1)]

    def _alike(self, first: ModelSettings, second: ModelSettings) -> bool:
        """Return whether the mean updates are too close for another pass over the data."""
        tallies = self.tallies[first], self.tallies[second]
        error = max(tally.updates_standard_error for tally in tallies)
        least = max(_STANDARD_ERRORS * error, _RELATIVE * tallies[0].updates)
        return abs(tallies[0].updates - tallies[1].updates) <= least

    def time(self, settings: Sequence[ModelSettings]) -> list[float]:
        """Return the time of an image at each of some settings, in seconds: a median.

        The settings take turns, since the speed of a machine changes within minutes.
        """
        images, _ = next(self.read())
        images = keras.tree.map_structure(lambda z: z[:_TIMED], images)
        seconds = np.zeros((_ROUNDS + 1, len(settings)))
        for row in seconds:
            for number, each in enumerate(settings):
                apply_settings(self.blocks, each)
                begin = time.perf_counter()
                self.run(images)
                row[number] = time.perf_counter() - begin
        return (np.median(seconds[1:], axis=0) / len(keras.tree.flatten(images)[0])).tolist()

    def report(
        self, before: ModelSettings, chosen: ModelSettings, seconds: Sequence[float]
    ) -> DepthReport:
        """Return the report of a search."""
        fixed_depth = processing_depth(self.model)
        times = dict(zip((before, chosen), seconds, strict=False))
        points = {
            each: depth_point(tally, each, fixed_depth, times.get(each))
            for each, tally in self.tallies.items()
        }
        # Not the settings near the chosen one, which hardly differ from it.
        levels = sorted({*self.levels, chosen}, key=lambda each: self.tallies[each].updates)
        return DepthReport(
            name=self.model.name,
            samples=self.tallies[chosen].samples,
            fixed_depth=fixed_depth,
            own=points[chosen],
            by_max_unroll=(),
            by_threshold=tuple(points[each] for each in levels),
            before=points[before],
            budget={self.budget.name: self.budget.limit},
            thresholds=thresholds_of(chosen),
        )
