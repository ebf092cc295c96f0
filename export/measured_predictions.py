"""Accuracy and number of updates of an exported model on test images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_iterconv.datasets import ImageData
from keras_iterconv.depth.depth_settings import DepthSettings

from .classifier import Predictions

# A function of raw images and a depth, None for the stored one.
Predict = Callable[[np.ndarray, DepthSettings | None], Predictions]

BATCH = 500
# Largest number of pixels in a batch.
BATCH_PIXELS = 2**20


class Measured(NamedTuple):
    """What a model reaches on the test images.

    Attributes:
        accuracy: The share of images with right answers.
        mean_updates: Updates of an image in all blocks together, mean over images.
    """

    accuracy: float
    mean_updates: float


def measure(run: Predict, data: ImageData) -> Measured:
    """Return accuracy and updates on the test images, at the stored depth."""
    right = updates = 0
    height, width, _ = data.input_shape
    batch = max(1, min(BATCH, BATCH_PIXELS // (height * width)))
    for begin in range(0, len(data.test), batch):
        images = data.test.images[begin : begin + batch].astype(np.float32)
        labels = data.test.labels[begin : begin + batch]
        found = run(images, None)
        right += int(np.sum(~data.task.is_wrong(found.logits, labels)))
        updates += int(np.sum(found.depth))
    return Measured(right / len(data.test), updates / len(data.test))
