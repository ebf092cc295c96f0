"""Thresholds of the blocks of a net, in the order of what stopping earlier does to the outputs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_iterconv.depth.depth_settings import DepthSettings, apply_settings
from keras_iterconv.depth.measurement import ModelSettings
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.layers import IteratedBlock


class _Step(NamedTuple):
    """A looser threshold of one block.

    Attributes:
        block: The index of the block.
        settings: Its settings after the step.
        price: The change of the outputs for each update that the step saves, mean over samples.
    """

    block: int
    settings: DepthSettings
    price: float


def effect_path(
    run: TracedDepth,
    blocks: Sequence[IteratedBlock],
    levels: Sequence[ModelSettings],
    batches: Sequence[Any],
) -> list[ModelSettings]:
    """Return settings from the loosest to the strictest thresholds, one step of a block at a time.

    Each block alone takes each of its levels, while the others have their strictest one; what this
    saves in updates and how far it moves the outputs is measured. From the strictest settings on,
    the block is next whose step moves the outputs least for each update saved. If the effects of
    the blocks added up, no other settings that save as much would move the outputs less (marginal
    analysis, Fox 1966).

    Args:
        run: The model's function; the settings of the blocks change.
        blocks: The adjustable blocks of the model.
        levels: Settings of all blocks, from the loosest to the strictest.
        batches: Inputs of the model, some batches.
    """

    def measure(settings):
        apply_settings(blocks, settings)
        found = [run(inputs) for inputs in batches]
        updates = np.concatenate([each["depth"].sum(axis=1) for each in found]).mean()
        return updates, [keras.tree.flatten(each[run.output]) for each in found]

    strictest = levels[-1]
    most, wanted = measure(strictest)
    steps = []
    for i in range(len(blocks)):
        points = [(0.0, 0.0, strictest[i])]
        for own in dict.fromkeys(level[i] for level in reversed(levels)):
            if own != strictest[i]:
                updates, outputs = measure([*strictest[:i], own, *strictest[i + 1 :]])
                points.append((most - updates, _change(outputs, wanted), own))
        steps += _hull(i, points)
    path, settings = [tuple(strictest)], list(strictest)
    for step in sorted(steps, key=lambda step: step.price):
        settings[step.block] = step.settings
        path.append(tuple(settings))
    return path[::-1]


def _change(
    outputs: Sequence[Sequence[np.ndarray]], wanted: Sequence[Sequence[np.ndarray]]
) -> float:
    """Return the squared change of all outputs, each relative to its mean square."""
    total = 0.0
    for found, reference in zip(zip(*outputs, strict=True), zip(*wanted, strict=True), strict=True):
        before = np.concatenate([np.ravel(z) for z in reference]).astype(np.float64)
        after = np.concatenate([np.ravel(z) for z in found]).astype(np.float64)
        # Of a sample that is not finite in any case nothing can be said.
        seen = np.isfinite(before)
        if not np.all(np.isfinite(after[seen])):
            return math.inf
        scale = np.mean(before[seen] ** 2) if seen.any() else 0.0
        if scale:
            total += float(np.mean((after[seen] - before[seen]) ** 2) / scale)
    return total


def _hull(block: int, points: Sequence[tuple[float, float, DepthSettings]]) -> list[_Step]:
    """Return the steps along the lower hull of the effects over the updates saved.

    A level above the hull is skipped: a looser one costs less for each update. The loosest level is
    the last step in any case, at any price where the outputs are no longer finite.
    """
    steps: list[_Step] = []
    (saved, effect, settings), price = points[0], -math.inf
    while True:
        further = [point for point in points if point[0] > saved]
        if not further:
            return steps
        finite = [point for point in further if math.isfinite(point[1])]
        if finite:
            slopes = [(moved - effect) / (more - saved) for more, moved, _ in finite]
            # Prices never fall along a hull, but by rounding: a later step may not come first.
            price = max(price, min(slopes))
            saved, effect, settings = finite[slopes.index(min(slopes))]
        else:
            price = math.inf
            saved, effect, settings = max(further, key=lambda point: point[0])
        steps.append(_Step(block, settings, price))
