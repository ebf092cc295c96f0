"""The depth of each test image by class, as in Fig. 5 of NAIS-Net, with accuracy and confidence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from keras_iterconv._support.outputs import LINEAR, output_activation, output_key
from keras_iterconv.datasets import ImageData
from keras_iterconv.depth.block_calls import iterated_blocks
from keras_iterconv.depth.depth_model import processing_depth, with_depth
from keras_iterconv.tasks import TASKS

# Number of classes shown; as many rows of images fit on a page.
CLASSES = 10
DEPTH_GROUPS = 8
PICTURE_GROUPS = 5
PICTURES_A_CELL = 5
BATCH = 100
_BLUE, _PINK = "#332288", "#CC6677"


class NoFigureError(ValueError):
    """A model or a data set has no figure of depth; the message says why."""


class Depths(NamedTuple):
    """Depth and predictions of a net for N images.

    Attributes:
        name: The net's name.
        classes: The class names.
        pictures: The images, float `[N, H, W, C]`, from 0 to 1.
        labels: Class numbers, int `[N]`.
        depth: The number of updates of each image in all blocks together, int `[N]`.
        limit: The largest possible number of updates.
        right: Whether each prediction is correct, bool `[N]`.
        confidence: The probability of each predicted class, `[N]`; NaN where a logit is not
            finite.
    """

    name: str
    classes: tuple[str, ...]
    pictures: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    limit: int
    right: np.ndarray
    confidence: np.ndarray


class Group(NamedTuple):
    """Images of similar depth.

    Attributes:
        least: The smallest number of updates.
        most: The largest number of updates.
        members: Mask of the images in the group, bool `[N]`.
    """

    least: int
    most: int
    members: np.ndarray

    @property
    def label(self) -> str:
        """The range of the number of updates."""
        return f"{self.least}" if self.least == self.most else f"{self.least}-{self.most}"


def measure_depths(model: keras.Model, name: str, data: ImageData, images: int) -> Depths:
    """Return the depth and the predictions of a net for the first test images.

    Args:
        model: Model from standardised images to logits or probabilities.
        name: Name of the net in the figure and in messages.
        data: Data set of the model, with the mean and the standard deviation that the model was
            trained with.
        images: Largest number of images.

    Raises:
        NoFigureError: All images have the same depth, or the data set is multi-label.
    """
    raw, labels = data.test.images[:images], data.test.labels[:images]
    if data.test.task is not TASKS["classes"]:
        raise NoFigureError(
            f"an image of {data.name} has several labels; the figure needs one class an image"
        )
    scaled = (raw.astype(np.float32) - data.mean) / data.std
    found = with_depth(model).predict(scaled, batch_size=BATCH, verbose=0)
    outputs, depth = found[output_key(model)], found["depth"].sum(axis=1)
    if depth.min() == depth.max():
        nais = any(block.adjustable for block in iterated_blocks(model))
        hint = "give --threshold for a depth that depends on the image"
        raise NoFigureError(
            f"each image takes {depth[0]} updates in {name}: "
            f"{hint if nais else 'a residual net has one depth'}"
        )
    probabilities = outputs
    if output_activation(model) == LINEAR:
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return Depths(
        name,
        data.classes,
        raw / np.float32(data.scale),
        labels,
        depth,
        processing_depth(model),
        ~data.task.is_wrong(outputs, labels),
        probabilities.max(axis=1),
    )


def group_by_depth(depth: np.ndarray, groups: int) -> list[Group]:
    """Return groups of about equal size, from shallow to deep; equal depths share a group.

    Args:
        depth: Number of updates of each image, int `[N]`.
        groups: Largest number of groups.
    """
    edges = np.unique(np.quantile(depth, np.arange(1, groups) / groups, method="higher"))
    number = np.searchsorted(edges, depth, side="right")
    members = [number == k for k in range(len(edges) + 1)]
    return [Group(int(depth[m].min()), int(depth[m].max()), m) for m in members if m.any()]


def draw_depths(path: Path, depths: Depths) -> Figure:
    """Draw histograms of depth, accuracy and confidence by depth, and images by class and depth.

    Args:
        path: Image file to write.
        depths: Result of `measure_depths`.

    Returns:
        The figure that was written.
    """
    shown = np.unique(depths.labels)[:CLASSES]
    figure = Figure(figsize=(12, 3.4 + 0.62 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{depths.name}: depth of {len(depths.depth):,} test images")
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[3.0, 0.4 + 0.62 * len(shown)])
    top, bottom = subfigures
    everything, by_class, accuracy, confidence = top.subplots(
        1, 4, gridspec_kw={"width_ratios": [1.1, 1.2, 1, 1]}
    )
    _draw_histogram(everything, depths)
    _draw_classes(by_class, depths, shown)
    _draw_predictions(accuracy, confidence, depths)
    for axes in (everything, by_class, accuracy, confidence):
        axes.spines[["top", "right"]].set_visible(False)
    members = {depths.classes[label]: depths.labels == label for label in shown}
    draw_pictures(
        bottom, {name: (depths.pictures[m], depths.depth[m]) for name, m in members.items()}
    )
    figure.savefig(path, dpi=120)
    return figure


def _draw_histogram(axes, depths):
    least, most = depths.depth.min(), depths.depth.max()
    width = max(1, int(np.ceil((most - least + 1) / 40)))
    axes.hist(depths.depth, np.arange(least, most + width + 1, width) - 0.5, color=_BLUE)
    axes.axvline(depths.depth.mean(), color="k", lw=1, ls="--")
    axes.set_title(f"mean {depths.depth.mean():.1f}, at most {depths.limit}", fontsize=9)
    axes.set_xlabel("updates of an image")
    axes.set_ylabel("images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _draw_classes(axes, depths, shown):
    depths_by_class = [depths.depth[depths.labels == label] for label in shown]
    axes.boxplot(
        depths_by_class,
        orientation="horizontal",
        tick_labels=[depths.classes[label] for label in shown],
        widths=0.6,
        flierprops={"marker": ".", "ms": 2, "mec": "0.5"},
        medianprops={"color": _PINK, "lw": 2},
    )
    axes.invert_yaxis()
    axes.set_title("by class: quartiles", fontsize=9)
    axes.set_xlabel("updates of an image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _draw_predictions(accuracy, confidence, depths):
    groups = group_by_depth(depths.depth, DEPTH_GROUPS)
    x = [depths.depth[group.members].mean() for group in groups]
    share = np.array([depths.right[group.members].mean() for group in groups])
    size = np.array([group.members.sum() for group in groups])
    error = np.sqrt(share * (1 - share) / size)
    accuracy.errorbar(x, share, error, marker="o", ms=4, color=_BLUE, capsize=2)
    accuracy.set_title("accuracy ± standard error", fontsize=9)
    low, median, high = np.transpose(
        [np.quantile(depths.confidence[g.members], [0.25, 0.5, 0.75]) for g in groups]
    )
    confidence.plot(x, median, "o-", ms=4, color=_PINK)
    confidence.fill_between(x, low, high, color=_PINK, alpha=0.25, lw=0)
    confidence.set_title("confidence: median, quartiles", fontsize=9)
    for axes in (accuracy, confidence):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("updates, mean of a group")
        axes.grid(axis="y", alpha=0.3)


def draw_pictures(figure: Any, classes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw a row for each class, and in it a cell for each group of depth, shallow to deep.

    Args:
        figure: The figure or subfigure to draw in.
        classes: For each class its images, float `[N, H, W, C]` from 0 to 1, and their numbers of
            updates, int `[N]`.
    """
    grid = figure.subplots(len(classes), PICTURE_GROUPS, squeeze=False)
    figure.suptitle("images by class, from shallow to deep: updates", fontsize=9)
    for (name, (pictures, depth)), row in zip(classes.items(), grid, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, group in zip(row, group_by_depth(depth, PICTURE_GROUPS), strict=False):
            chosen = pictures[group.members][:PICTURES_A_CELL]
            strip = np.full((PICTURES_A_CELL, *chosen.shape[1:]), np.nan)
            strip[: len(chosen)] = chosen
            # A margin of at least one pixel between images.
            margin = max(1, chosen.shape[2] // 16)
            strip = np.pad(strip, ((0, 0), (0, 0), (0, margin), (0, 0)), constant_values=np.nan)
            image = np.concatenate(list(strip), axis=1)
            opaque = np.isfinite(image[..., :1])
            image = np.nan_to_num(np.broadcast_to(image, (*image.shape[:2], 3)))
            axes.imshow(np.concatenate([image, opaque], axis=2))
            axes.set_title(group.label, fontsize=7, pad=2)
        row[0].text(-0.05, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
