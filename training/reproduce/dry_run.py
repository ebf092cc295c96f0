"""What the trainings of an experiment would cost: parameters, operations, and hours."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import keras_iterconv as ki
from keras_iterconv.datasets import CATALOGUE, ImageData, Split
from keras_iterconv.depth.depth_settings import is_adaptive

from ..session import build_model
from ..settings import Settings, make_settings
from .counted_operations import count_operations
from .experiment import Experiment

# Images in the official training parts of the complete data sets, which need not be here.
TRAINING_IMAGES = {"digits": 1437, "mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
# Steps that are timed after the first, which also traces, and the operations of the largest one.
STEPS, LARGEST_STEP = 3, 1e11
FEWEST_IMAGES = 8
UNITS = ("parameters", "GFLOP an image", "images/s")


class NetCost(NamedTuple):
    """What a net costs in training.

    Attributes:
        parameters: The number of its parameters.
        operations: The number of operations for one image in a training step.
        images_per_second: The number of training images in a second on this machine.
    """

    parameters: int
    operations: float
    images_per_second: float


class Phase(NamedTuple):
    """Epochs of a training with one number of updates; None for the net's own number."""

    epochs: int
    max_unroll: int | None


def estimate(
    experiment: Experiment, scale: str, console: Console, seeds: int | None = None
) -> float:
    """Print what each condition of an experiment would cost, and return the hours of all.

    Each different net is built in full, its operations are counted, and a few training steps are
    timed, on images of noise. Nothing is written.

    Args:
        experiment: The experiment.
        scale: One of `SCALES`.
        console: The console for the table and the progress.
        seeds: The number of seeds; None for that of the experiment.
    """
    cases = experiment.cases(scale, seeds)
    runs = Counter(case.condition for case in cases)
    settings = {case.condition: case.settings for case in cases}
    trainings = {name: each for name, each in settings.items() if {"model", "preset"} & set(each)}
    table = Table("condition", *UNITS, "runs", "hours")
    for column in table.columns[1:]:
        column.justify = "right"
    costs: dict[Any, NetCost] = {}
    total = 0.0
    for name, given in trainings.items():
        wanted = make_settings(**dict(given), seed=0)
        seconds = 0.0
        for phase, cost in _phase_costs(wanted, costs, console):
            seconds += phase.epochs * images_per_epoch(wanted) / cost.images_per_second
        hours = runs[name] * seconds / 3600
        total += hours
        table.add_row(name, *_cells(cost).values(), f"{runs[name]}", f"{hours:,.1f}")
    if trainings:
        console.print(table)
    for name, given in settings.items():
        if name not in trainings:
            console.print(f"{name}: no training of training.fit, but {_as_text(given)}")
    console.print(f"All trainings: about {total:,.1f} hours on this machine, without evaluation.")
    return total


def _cells(cost: NetCost) -> dict[str, str]:
    """Return the numbers of a cost as text, by their units."""
    numbers = (
        f"{cost.parameters:,}",
        f"{cost.operations / 1e9:.3g}",
        f"{cost.images_per_second:.3g}",
    )
    return dict(zip(UNITS, numbers, strict=True))


def images_per_epoch(settings: Settings) -> int:
    """Return the number of images in an epoch of a training on the complete data set."""
    if settings.limit_train is not None:
        return settings.limit_train
    available = CATALOGUE[settings.dataset].available
    if available is not None:
        return available
    return round(TRAINING_IMAGES[settings.dataset] * (1 - settings.validation_share))


def phases(settings: Settings) -> list[Phase]:
    """Return the phases of a training: one for each number of updates, in their order."""
    unrolls = settings.make_unroll_schedule()
    if unrolls is None:
        return [Phase(settings.epochs, None)]
    starts = [*unrolls.schedule, settings.epochs]
    return [
        Phase(following - start, unrolls.schedule[start])
        for start, following in itertools.pairwise(starts)
    ]


def _phase_costs(
    settings: Settings, costs: dict[Any, NetCost], console: Console
) -> Iterator[tuple[Phase, NetCost]]:
    """Yield the phases of a training with the cost of their nets, measured once for equal nets."""
    for phase in phases(settings):
        key = (_net_of(settings), phase.max_unroll)
        if key not in costs:
            updates = "" if phase.max_unroll is None else f" with {phase.max_unroll} updates"
            console.print(f"building {settings.model}{updates} for {settings.dataset}")
            costs[key] = measure_net(settings, phase.max_unroll)
            console.print(", ".join(f"{cell} {unit}" for unit, cell in _cells(costs[key]).items()))
        yield phase, costs[key]


def _net_of(settings: Settings) -> tuple[Any, ...]:
    """Return what determines a net and its training step, as a key."""
    entry = CATALOGUE[settings.dataset]
    return (
        settings.model,
        repr(sorted(settings.overrides().items())),
        (entry.input_shape, entry.num_classes, entry.task),
        (settings.batch_size, settings.mixed_precision, settings.coupling is not None),
    )


def measure_net(settings: Settings, max_unroll: int | None = None) -> NetCost:
    """Return what a net costs in training, measured on images of noise.

    A net of adaptive depth is measured at its largest depth.

    Args:
        settings: The settings of the run.
        max_unroll: The number of updates of each block; None for the net's own.
    """
    keras.backend.clear_session()
    data = _noise(settings)
    model = build_model(settings, data)
    if max_unroll is not None:
        ki.set_depth(model, max_unroll)
    if is_adaptive(model):
        ki.set_depth(model, threshold=None)
    images = tf.random.stateless_normal((len(data.train), *data.input_shape), (0, 0))
    labels = tf.constant(data.train.labels)

    def count(number: int) -> int:
        batch = (images[:number], labels[:number])
        return count_operations(lambda: model.train_step(batch))

    # A part of a step is independent of the batch: projections and norms of weights.
    one, two = count(1), count(2)
    operations = two - one + (2 * one - two) / settings.batch_size
    number = int(min(settings.batch_size, max(FEWEST_IMAGES, LARGEST_STEP // operations)))
    seconds = _step_seconds(model, images[:number], labels[:number])
    return NetCost(model.count_params(), operations, number / seconds)


def _step_seconds(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> float:
    """Return the median time of a training step, in seconds."""
    model.train_on_batch(images, labels)
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def _noise(settings: Settings) -> ImageData:
    """Return a batch of random images as a data set, of the shapes of that of a run."""
    entry = CATALOGUE[settings.dataset]
    count, classes = max(2, settings.batch_size), entry.num_classes
    images = np.random.default_rng(0).integers(
        0, entry.scale, (count, *entry.input_shape), dtype=np.uint8, endpoint=True
    )
    labels = np.arange(count, dtype=np.int32) % classes
    if entry.task == "label_sets":
        labels = np.eye(classes, dtype=np.int32)[labels]
    split = Split(images, labels)
    channels = np.ones(entry.input_shape[-1], np.float32)
    names = tuple(str(label) for label in range(classes))
    return ImageData(
        settings.dataset, split, split, split, 0 * channels, channels, names, entry.scale
    )


def _as_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
