"""What the experiments on depth measure of a net: accuracy, updates and time at several depths."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

import keras_iterconv as ki
from keras_iterconv.datasets import ImageData, evaluation_batches
from keras_iterconv.depth.traced_depth import TracedDepth

from ..run_folder import RunFolder

# Number of images in a batch, where only the results matter.
BATCH = 256
# Number of timed runs of each setting.
ROUNDS = 5


@contextlib.contextmanager
def _fixed_again(model: keras.Model) -> Iterator[None]:
    """Restore the fixed depth of a model's blocks at the end of this context."""
    own = ki.iterated_blocks(model)[0].max_unroll
    try:
        yield
    finally:
        ki.set_depth(model, own, None)


def load_run(run: RunFolder) -> tuple[keras.Model, ImageData]:
    """Return the model of a finished run, and the data set that it was trained on."""
    settings = run.read_config()["settings"]
    data = ki.datasets.load(
        settings.dataset,
        limit_train=settings.limit_train,
        validation_share=settings.validation_share,
        pixels=settings.pixels,
    )
    return keras.models.load_model(run.last), data


def test_loss(model: keras.Model, data: ImageData) -> float:
    """Return the mean loss of a model on the test part."""
    batches = evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=BATCH)
    logits = model.predict(batches.map(lambda images, labels: images), verbose=0)
    return float(data.task.mean_loss(data.test.labels, logits))


def measure_settings(
    model: keras.Model,
    data: ImageData,
    max_unrolls: Sequence[int],
    thresholds: Sequence[float],
) -> list[dict[str, Any]]:
    """Return accuracy and updates on the test part at fixed depths, and with thresholds.

    Args:
        model: A net with NAIS blocks of fixed depth.
        data: The data set, with the scale of its images.
        max_unrolls: The numbers of updates of each block.
        thresholds: Stopping thresholds, with the net's own number of updates as the limit.

    Returns:
        A dict for each setting: `max_unroll`; `threshold`, or None; `accuracy`; `updates`, the
        number of updates of a block, mean over blocks and images; `share_at_limit`.
    """
    batches = evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=BATCH)
    report = ki.accuracy_by_depth(model, batches, max_unrolls, thresholds)
    blocks = len(ki.iterated_blocks(model))
    names = ("max_unroll", "threshold", "accuracy", "share_at_limit")
    return [
        {**{name: asdict(point)[name] for name in names}, "updates": point.updates / blocks}
        for point in (*report.by_max_unroll, *report.by_threshold)
    ]


def threshold_of(model: keras.Model, data: ImageData, share: float, samples: int) -> float:
    """Return the stopping threshold at which training images make a share of all updates, or less.

    The threshold is that of `calibrate_depth` for this mean number of updates.

    Args:
        model: A net with NAIS blocks of fixed depth; its settings are restored.
        data: The data set, with the scale of its images.
        share: The share of the updates that the net makes without a threshold.
        samples: The number of training images to measure on, the first ones.
    """
    batches = evaluation_batches(data.train, mean=data.mean, std=data.std, batch_size=BATCH)
    updates = share * ki.processing_depth(model)
    with _fixed_again(model):
        ki.calibrate_depth(model, batches, mean_updates=updates, samples=samples)
        return float(ki.iterated_blocks(model)[0].threshold)


def time_settings(
    model: keras.Model,
    images: np.ndarray,
    settings: Sequence[dict[str, Any]],
    batch_size: int,
    rounds: int = ROUNDS,
) -> list[float]:
    """Return the time of an image at each of some settings, in seconds: the median of the rounds.

    The settings take turns, since the speed of a machine changes within minutes. Stopped images
    leave their batch by the library's rule.

    Args:
        model: A net with NAIS blocks of fixed depth; its settings are restored.
        images: Images as the net takes them; those after the last full batch are left out.
        settings: Dicts with `max_unroll` and `threshold`.
        batch_size: Number of images in a batch.
        rounds: Number of timed runs of each setting, after one that is not timed.
    """
    run = TracedDepth(model)
    batches = [
        images[begin : begin + batch_size]
        for begin in range(0, len(images) - batch_size + 1, batch_size)
    ]
    seconds = np.zeros((rounds + 1, len(settings)))
    with _fixed_again(model):
        for row in seconds:
            for number, setting in enumerate(settings):
                # Not through the model's own functions: these would be traced again each time.
                ki.set_depth(model, setting["max_unroll"], setting["threshold"])
                begin = time.perf_counter()
                for batch in batches:
                    run(batch)
                row[number] = time.perf_counter() - begin
    return list(np.median(seconds[1:], axis=0) / (len(batches) * batch_size))
