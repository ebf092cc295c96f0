"""Accuracy and depth of a trained model on one part of a data set."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_iterconv.datasets import ImageData, Split, evaluation_batches
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.metrics import is_wrong

from .objectives import mean_loss


class Evaluation(NamedTuple):
    """What a model did on a part of a data set.

    Attributes:
        loss: The mean cross-entropy.
        accuracy: The share of pictures whose largest logit is their class; where a picture shows n
            classes, whose n largest logits are exactly these.
        depth: The updates that each picture took in all blocks together, int `[N]`.
        share_at_limit: The share of pictures and blocks that did not converge within `max_unroll`
            updates; 1 for blocks of fixed depth.
        share_not_finite: The share of pictures and blocks whose state was not finite.
    """

    loss: float
    accuracy: float
    depth: np.ndarray
    share_at_limit: float
    share_not_finite: float


def evaluate(
    run: Callable[..., dict[str, np.ndarray]], data: ImageData, split: Split, batch_size: int
) -> Evaluation:
    """Run a net over a part of a data set.

    Args:
        run: Maps a batch to what `keras_iterconv.with_depth` returns, as arrays.
        data: The data set, for its mean and standard deviation.
        split: The part.
        batch_size: Images a batch; the last one may be smaller.
    """
    batches = evaluation_batches(split, mean=data.mean, std=data.std, batch_size=batch_size)
    parts = [run(images) for images, _ in batches]
    logits, depth, status = (
        np.concatenate([part[name] for part in parts]) for name in ("logits", "depth", "status")
    )
    tally = DepthTally()
    tally.add(depth, status, ~is_wrong(logits, split.labels))
    return Evaluation(
        loss=mean_loss(split.labels, logits),
        accuracy=tally.accuracy,
        depth=depth.sum(axis=1),
        share_at_limit=tally.share_at_limit,
        share_not_finite=tally.share_not_finite,
    )
