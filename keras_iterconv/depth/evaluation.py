"""Accuracy and depth of a trained model on one part of a data set."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_iterconv.datasets import ImageData, Split, evaluation_batches
from keras_iterconv.depth.depth_model import processing_depth
from keras_iterconv.depth.depth_settings import is_adaptive
from keras_iterconv.depth.tally import DepthTally


class Evaluation(NamedTuple):
    """The loss, the accuracy and the depth of a model on one part of a data set.

    Attributes:
        loss: The mean cross-entropy.
        accuracy: The share of images that are predicted right: the class of the largest logit is
            the label; for an image with n classes, the classes of the n largest logits are
            exactly its labels.
        depth: The number of updates of each image, summed over all blocks, int `[N]`.
        share_at_limit: The share of (image, block) pairs that did not converge within
            `max_unroll` updates; 1 for blocks of fixed depth.
        share_not_finite: The share of (image, block) pairs whose state was not finite.
    """

    loss: float
    accuracy: float
    depth: np.ndarray
    share_at_limit: float
    share_not_finite: float


def evaluate(
    run: Callable[..., dict[str, np.ndarray]], data: ImageData, split: Split, batch_size: int
) -> Evaluation:
    """Return the results of a model on one part of a data set.

    Args:
        run: A function from a batch to the outputs of `keras_iterconv.with_depth`, as arrays.
        data: The data set, for its mean and standard deviation.
        split: The part of the data set.
        batch_size: Number of images in a batch; the last batch may be smaller.
    """
    batches = evaluation_batches(split, mean=data.mean, std=data.std, batch_size=batch_size)
    batch_outputs = [run(images) for images, _ in batches]
    key = "logits" if "logits" in batch_outputs[0] else "outputs"
    logits, depth, status = (
        np.concatenate([outputs[name] for outputs in batch_outputs])
        for name in (key, "depth", "status")
    )
    tally = DepthTally()
    tally.add(depth, status, ~data.task.is_wrong(logits, split.labels))
    return Evaluation(
        loss=data.task.mean_loss(split.labels, logits),
        accuracy=tally.accuracy,
        depth=depth.sum(axis=1),
        share_at_limit=tally.share_at_limit,
        share_not_finite=tally.share_not_finite,
    )


def results_by_depth(evaluations: Mapping[str, Evaluation], model: keras.Model) -> dict[str, Any]:
    """Return the members of a run's `result.json` that depend on the depth settings.

    Args:
        evaluations: The results on `"train"` and `"test"`, and on `"validation"` if it exists.
        model: The model.
    """
    test = evaluations["test"]
    accuracy = {part: evaluation.accuracy for part, evaluation in evaluations.items()}
    return {
        "train_accuracy": accuracy["train"],
        "validation_accuracy": accuracy.get("validation"),
        "test_accuracy": accuracy["test"],
        "generalization_gap": accuracy["train"] - accuracy["test"],
        "adaptive": is_adaptive(model),
        "processing_depth": processing_depth(model),
        "mean_depth": float(test.depth.mean()),
        "min_depth": int(test.depth.min()),
        "max_depth": int(test.depth.max()),
        "distinct_depths": len(np.unique(test.depth)),
        "share_at_limit": test.share_at_limit,
        "share_not_finite": test.share_not_finite,
    }


def mirrored_accuracy(
    run: Callable[..., dict[str, np.ndarray]], data: ImageData, split: Split, batch_size: int
) -> float:
    """Return the accuracy of the mean of the logits of each image and its mirror image.

    It computes each image twice, so that it is no result of the model alone: name it as such.

    Args:
        run: A function from a batch to the outputs of `keras_iterconv.with_depth`, as arrays.
        data: The data set, for its mean and standard deviation.
        split: The part of the data set.
        batch_size: Number of images in a batch; the last batch may be smaller.
    """
    batches = evaluation_batches(split, mean=data.mean, std=data.std, batch_size=batch_size)
    logits = [
        np.concatenate([run(images[:, :, ::step])["logits"] for images, _ in batches])
        for step in (1, -1)
    ]
    return float(np.mean(~data.task.is_wrong(np.mean(logits, axis=0), split.labels)))
