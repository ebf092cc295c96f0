"""Reading data sets for measurements: batches, or one pair of arrays."""

import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

BATCH_SIZE = 256


def labelled_batches(dataset: Any, samples: int | None = None) -> Iterator:
    """Yield the batches `(images, labels)` of a data set.

    Args:
        dataset: Batches, e.g. a `tf.data.Dataset`; or one pair of arrays, or of dicts or lists of
            arrays, which is divided into batches of 256.
        samples: Number of images, from the first on; no batch is read after them. None for all
            images of a finite data set.

    Raises:
        ValueError: The data set is neither batches nor a pair of arrays, the arrays differ in
            length, or `samples` is None and the data set is infinite.
    """
    batches = _all_batches(dataset, ends=samples is None)
    return batches if samples is None else _first(batches, samples)


def _as_arrays(arrays: Any, inputs: Any) -> Any:
    """Return an array, or a dict or list of arrays for a model of several inputs or outputs.

    Args:
        arrays: The inputs or the labels.
        inputs: The inputs. A list of arrays with an element for each of their samples is of several
            outputs, another list one array of labels.
    """
    if isinstance(arrays, dict):
        return {name: np.asarray(array) for name, array in arrays.items()}
    if isinstance(arrays, list) and all(hasattr(array, "shape") for array in arrays):
        count = len(tf.nest.flatten(inputs)[0])
        if arrays is inputs or all(np.ndim(z) and len(z) == count for z in arrays):
            return [np.asarray(array) for array in arrays]
    return np.asarray(arrays)


def check_not_empty(count: int) -> None:
    """Raise `ValueError` where a data set has no image."""
    if not count:
        raise ValueError("`dataset` must hold at least one image. Received: an empty data set")


def read_ahead(batches: Iterator, samples: int) -> tuple[list, Iterator]:
    """Return the images of the first samples, some batches, and an iterator over all batches.

    Args:
        batches: The batches `(images, labels)`; no more are read than needed.
        samples: Number of samples.
    """
    read: list = []
    count = 0
    for batch in batches:
        read.append(batch)
        count += len(tf.nest.flatten(batch)[0])
        if count >= samples:
            break
    images = [images for images, _ in _first(iter(read), samples)]
    return images, itertools.chain(read, batches)


def _first(batches: Iterator, samples: int) -> Iterator:
    for batch in batches:
        batch = tf.nest.map_structure(operator.itemgetter(slice(samples)), batch)
        yield batch
        samples -= len(tf.nest.flatten(batch)[0])
        if not samples:
            return


def _all_batches(dataset: Any, ends: bool) -> Iterator:
    pair = isinstance(dataset, tuple | list) and len(dataset) == 2
    # A list of two batches is not a pair of arrays: its elements are pairs. A tuple of two lists
    # is one pair, of several inputs or outputs.
    of_lists = isinstance(dataset, tuple) and pair and isinstance(dataset[0], list)
    if pair and (of_lists or not isinstance(dataset[0], tuple | list)):
        arrays = tuple(_as_arrays(each, dataset[0]) for each in dataset)
        images, *others = [len(array) for array in tf.nest.flatten(arrays)]
        if others != [images] * len(others):
            raise ValueError(
                "`dataset` must have a label for each image. "
                f"Received: {images} images, {', '.join(map(str, others))} labels"
            )
        for begin in range(0, images, BATCH_SIZE):
            yield tf.nest.map_structure(lambda z, n=begin: z[n : n + BATCH_SIZE], arrays)
        return
    if not isinstance(dataset, Iterable):
        raise ValueError(
            "`dataset` must be batches (images, labels) or a pair of arrays. "
            f"Received: dataset={dataset!r}"
        )
    cardinality = getattr(dataset, "cardinality", None)
    endless = cardinality is not None and int(cardinality()) == tf.data.INFINITE_CARDINALITY
    if endless and ends:
        raise ValueError(
            "`dataset` must be finite, or `samples` must give the number of images. "
            "Received: an infinite data set, samples=None"
        )
    yield from dataset


def batches_of_size(dataset: Any, size: int) -> Iterator:
    """Yield the inputs of a data set in batches of a size, the last of which may be smaller.

    Args:
        dataset: An array or a dict of arrays, or as for `labelled_batches`; the batches may be
            inputs alone. A tuple of two is a pair of inputs and labels; a list is one of batches.
        size: The number of samples.

    Raises:
        ValueError: The samples have different shapes, or as for `labelled_batches`.
    """
    rest: Any = None
    for batch in _input_batches(dataset):
        batch = tf.nest.map_structure(np.asarray, batch)
        if rest is not None:
            _check_shapes(batch, rest)
            batch = tf.nest.map_structure(lambda *z: np.concatenate(z), rest, batch)
        count = len(tf.nest.flatten(batch)[0])
        whole = count - count % size
        for begin in range(0, whole, size):
            yield tf.nest.map_structure(lambda z, n=begin: z[n : n + size], batch)
        rest = tf.nest.map_structure(lambda z, n=whole: z[n:], batch)
    if rest is not None and len(tf.nest.flatten(rest)[0]):
        yield rest


def _input_batches(dataset: Any) -> Iterator:
    if hasattr(dataset, "shape") or isinstance(dataset, dict):
        yield _as_arrays(dataset, dataset)
        return
    # Batches of inputs alone may be two, so that only a tuple is a pair of inputs and labels.
    batches = dataset if isinstance(dataset, list) else labelled_batches(dataset)
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple) else batch


def _check_shapes(batch: Any, before: Any) -> None:
    shapes, earlier = (
        [tuple(z.shape[1:]) for z in tf.nest.flatten(each)] for each in (batch, before)
    )
    if shapes != earlier:
        raise ValueError(
            "The samples of `dataset` must have one shape: pad them, with a mask in the model, or "
            f"use one call for each shape. Received: samples of the shapes {earlier} and {shapes}"
        )
