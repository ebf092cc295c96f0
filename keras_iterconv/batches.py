"""What a data set may be where a net is measured: batches, or one pair of arrays."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

BATCH_SIZE = 256


def labelled_batches(dataset) -> Iterator:
    """Yield the batches `(images, labels)` of a data set.

    Args:
        dataset: Batches, e.g. a finite `tf.data.Dataset`; or one pair of arrays, which is cut into
            batches of 256.

    Raises:
        ValueError: It is none of these, the arrays differ in length, or it has no end.
    """
    pair = isinstance(dataset, tuple | list) and len(dataset) == 2
    # Two batches in a list are pairs themselves.
    if pair and not isinstance(dataset[0], tuple | list):
        images, labels = (np.asarray(part) for part in dataset)
        if len(images) != len(labels):
            raise ValueError(
                "`dataset` must have a label for each image. "
                f"Received: {len(images)} images, {len(labels)} labels"
            )
        for begin in range(0, len(images), BATCH_SIZE):
            yield images[begin : begin + BATCH_SIZE], labels[begin : begin + BATCH_SIZE]
        return
    if not isinstance(dataset, Iterable):
        raise ValueError(
            "`dataset` must be batches (images, labels) or a pair of arrays. "
            f"Received: dataset={dataset!r}"
        )
    cardinality = getattr(dataset, "cardinality", None)
    if cardinality is not None and int(cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError("`dataset` must end. Received: a data set without end")
    yield from dataset
