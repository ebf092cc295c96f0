"""The figure of the depth of images, after Fig. 5 of NAIS-Net."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from keras_iterconv import datasets
from keras_iterconv.depth.figure_by_class import draw_pictures

from ..figure_file import figure_file

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"


def draw_depth_of_images(
    path: Path, measures: Mapping[str, Any], shown: Sequence[tuple[str, ...]]
) -> None:
    """Draw the depths of each class, the relations beside chance, and images by depth.

    Args:
        path: The image file to write.
        measures: The measures of one net.
        shown: The paths of the relations that are drawn.
    """
    with figure_file(path, (10, 7)) as figure:
        parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.1])
        top, bottom = parts
        by_class, relations = top.subplots(1, 2)
        _draw_classes(by_class, measures["depths"])
        _draw_relations(relations, measures["relations"], shown)
        draw_pictures(bottom, _pictures_of(measures))


def _pictures_of(measures: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the test images of each class with their depths."""
    data = datasets.load(measures["dataset"])
    found = {}
    for name, depth in measures["depths"].items():
        images = data.test.images[data.test.labels == data.classes.index(name)][: len(depth)]
        found[name] = images / np.float32(data.scale), np.array(depth)
    return found


def _draw_classes(ax: Axes, depths: Mapping[str, Sequence[int]]) -> None:
    ax.boxplot(
        list(depths.values()),
        orientation="horizontal",
        tick_labels=list(depths),
        widths=0.6,
        flierprops={"marker": ".", "ms": 2, "mec": "0.5"},
        medianprops={"color": ORANGE, "lw": 2},
    )
    ax.invert_yaxis()
    ax.set_title("by class: quartiles", loc="left", fontsize=9)
    ax.set_xlabel("updates of an image")


def _draw_relations(
    ax: Axes, relations: Mapping[str, Any], shown: Sequence[tuple[str, ...]]
) -> None:
    """Draw the correlations as dots, and the central 95% of the permutations as bars."""
    for row, keys in enumerate(shown):
        relation: Any = relations
        for key in keys:
            relation = relation[key]
        if relation is None:
            continue
        ax.plot([relation["low"], relation["high"]], [row, row], color="0.75", lw=6)
        ax.plot(relation["value"], row, "o", color=BLUE)
    ax.axvline(0, color="0.5", lw=0.8)
    ax.set_yticks(range(len(shown)), [", ".join(reversed(keys)) for keys in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_title("relation to updates; grey: 95% of permutations", loc="left", fontsize=9)
    ax.set_xlabel("rank correlation")
