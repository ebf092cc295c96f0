"""Batches for training and for evaluation, of images in memory or on disk."""

from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

from keras_iterconv.datasets.augmentation import DRAWS, Augmentation, alternate, get_augmentation
from keras_iterconv.datasets.image_split import Split
from keras_iterconv.datasets.stored_images import StoredImages

# Two batches in parallel occupy two cores; more would slow down the training step.
PARALLEL_BATCHES = 2
BATCHES_AHEAD = 4
# Numbers of the random streams for the order of an epoch, its augmentation, and the mirroring in
# the first epoch.
_ORDER, _DRAWS, _FIRST_MIRRORING = 0, 1, 2
_GENERATOR = "philox"  # The automatic choice may differ between devices.


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Return the number of full batches in an epoch; remaining images are left out.

    Args:
        split: Training part.
        batch_size: Number of images in a batch.

    Raises:
        ValueError: The batch size is not a positive integer, or larger than the training part.

    Example:
        >>> split = ki.datasets.Split(np.zeros((100, 8, 8, 1), np.uint8), np.zeros(100, np.int32))
        >>> ki.datasets.steps_per_epoch(split, 32)  # four images are left out
        3

    See also:
        `datasets.training_batches`; `datasets.ImageData.steps_per_epoch`.
    """
    _check_batch_size(batch_size)
    if batch_size > len(split):
        raise ValueError(
            f"`batch_size` must be at most {len(split)}, the number of training images, so that "
            f"one batch can be filled. Received: batch_size={batch_size}"
        )
    return len(split) // batch_size


def training_batches(
    split: Split,
    *,
    mean: np.ndarray,
    std: np.ndarray,
    batch_size: int,
    seed: int,
    augment: str = "none",
    initial_epoch: int = 0,
    initial_step: int = 0,
    replicas: range = range(1),
    of: int = 1,
) -> tf.data.Dataset:
    """Return an infinite data set of shuffled, augmented and standardised batches.

    Call `fit` with `steps_per_epoch=steps_per_epoch(split, batch_size)`: Keras then keeps one
    iterator for the whole run. A new iterator for each epoch would cause a pause.

    The order of an epoch is a function of (seed, epoch), and the augmentation of an image one of
    (seed, epoch, image number). So a run that is resumed at any step gets exactly the batches of an
    uninterrupted run. Images at the end of an epoch's order that do not fill a batch are left out;
    they differ from epoch to epoch.

    Shifted images are padded with the raw value `split.padding`, or with `mean` where it is None.

    Args:
        split: Training part; its images, uint8 [N, H, W, C], are copied once, or read from disk
            for each batch.
        mean: Value to subtract from each channel, float32 [C], in raw values.
        std: Divisor of each channel, float32 [C].
        batch_size: Number of images in a batch.
        seed: Training seed, an integer from 0 to 2**63 - 1.
        augment: Name in `AUGMENTATIONS`.
        initial_epoch: Epoch to start at, from 0.
        initial_step: Step of this epoch to start at, from 0; images before it are not read.
        replicas: The replicas, by their numbers from 0, that get their images from this data set:
            those of one worker, for `tf.distribute.Strategy.distribute_datasets_from_function`.
        of: Number of replicas that share a batch. Their shares differ by at most one image.

    Returns:
        A dataset of `(images float32 [batch_size, H, W, C], labels int32 [batch_size])`; the labels
        are int32 [batch_size, classes] where a label is a set of classes. With several replicas it
        has an element for each of `replicas` and each step, its share of the batch.

    Raises:
        ValueError: An argument is out of range, or the augmentation is unknown.
        MissingExtraError: The augmentation needs a package that is not installed.

    Example:
        >>> images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6, dtype=np.int32)
        >>> split = ki.datasets.Split(images, labels)
        >>> facts = {"mean": np.zeros(1, "float32"), "std": np.ones(1, "float32"), "batch_size": 3}
        >>> whole = ki.datasets.training_batches(split, seed=0, **facts)
        >>> resumed = ki.datasets.training_batches(split, seed=0, initial_step=1, **facts)
        >>> second = list(whole.take(2))[1]
        >>> np.array_equal(second[1], next(iter(resumed))[1])  # the labels of the second batch
        True

    See also:
        `datasets.ImageData.training_batches`; `datasets.steps_per_epoch`; `datasets.batch_numbers`;
        `datasets.evaluation_batches`.
    """
    steps = steps_per_epoch(split, batch_size)
    _check_whole("seed", seed)
    _check_whole("initial_epoch", initial_epoch)
    _check_whole("initial_step", initial_step)
    augmentation = get_augmentation(augment)
    assemble = _assembler(split, mean, std, augmentation)
    count, used = len(split), steps * batch_size
    bounds = tf.constant([batch_size * replica // of for replica in range(of + 1)], tf.int64)

    def rows_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = _order(key, count)[:used]
        draws = tf.random.stateless_uniform([count, DRAWS], _stream(key, _DRAWS), alg=_GENERATOR)
        if augment == "alternating":
            start = tf.stack([tf.constant(seed, tf.int64), tf.constant(0, tf.int64)])
            first = tf.random.stateless_uniform(
                [count], _stream(start, _FIRST_MIRRORING), alg=_GENERATOR
            )
            draws = alternate(draws, first, epoch)
        rows = (
            tf.reshape(order, [steps, batch_size]),
            tf.reshape(tf.gather(draws, order), [steps, batch_size, DRAWS]),
        )
        if of == 1:
            return tf.data.Dataset.from_tensor_slices(rows)

        def share(number):
            step, replica = number // len(replicas), replicas[0] + number % len(replicas)
            return tuple(row[step, bounds[replica] : bounds[replica + 1]] for row in rows)

        return tf.data.Dataset.range(steps * len(replicas)).map(share)

    dataset = tf.data.Dataset.counter(initial_epoch).flat_map(rows_of_epoch)
    dataset = dataset.skip(initial_step * len(replicas))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return _finish(dataset.map(assemble, num_parallel_calls=PARALLEL_BATCHES))


def batch_numbers(split: Split, *, batch_size: int, seed: int, epoch: int, step: int) -> np.ndarray:
    """Return the image numbers of a batch of `training_batches`.

    Args:
        split: Training part.
        batch_size: Number of images in a batch.
        seed: Training seed.
        epoch: Epoch, from 0.
        step: Step of the epoch, from 0.

    Returns:
        Indices of images in the training part, int32 [batch_size].

    Example:
        >>> split = ki.datasets.Split(np.zeros((6, 8, 8, 1), np.uint8), np.zeros(6, np.int32))
        >>> batches = [
        ...     ki.datasets.batch_numbers(split, batch_size=3, seed=0, epoch=0, step=step).tolist()
        ...     for step in range(2)
        ... ]
        >>> sorted(batches[0] + batches[1])  # an epoch has each image once
        [0, 1, 2, 3, 4, 5]

    See also:
        `datasets.training_batches`.
    """
    key = tf.constant([seed, epoch], tf.int64)
    return _order(key, len(split)).numpy()[step * batch_size : (step + 1) * batch_size]


def evaluation_batches(
    split: Split, *, mean: np.ndarray, std: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """Return a data set of standardised batches in the order of a part; the last may be smaller.

    Args:
        split: Any part.
        mean: Mean of the training part, float32 [C].
        std: Standard deviation of the training part, float32 [C].
        batch_size: Number of images in a batch; may be larger than the part.

    Returns:
        A dataset of `(images float32 [B, H, W, C], labels int32 [B])`, B at most `batch_size`; the
        labels are int32 [B, classes] where a label is a set of classes.

    Raises:
        ValueError: The batch size is not a positive integer.

    Example:
        >>> images, labels = np.full((5, 8, 8, 1), 9, np.uint8), np.arange(5, dtype=np.int32)
        >>> split = ki.datasets.Split(images, labels)
        >>> mean, std = np.array([5], "float32"), np.array([2], "float32")
        >>> batches = list(ki.datasets.evaluation_batches(split, mean=mean, std=std, batch_size=3))
        >>> [len(labels) for _, labels in batches], float(batches[0][0][0, 0, 0, 0])
        ([3, 2], 2.0)

    See also:
        `datasets.ImageData.evaluation_batches`; `datasets.training_batches`.
    """
    _check_batch_size(batch_size)
    assemble = _assembler(split, mean, std, get_augmentation("none"))
    draws = tf.zeros([0, DRAWS])
    dataset = tf.data.Dataset.range(len(split), output_type=tf.int32).batch(batch_size)
    dataset = dataset.map(
        lambda indices: assemble(indices, draws), num_parallel_calls=PARALLEL_BATCHES
    )
    return _finish(dataset)


def _assembler(
    split: Split, mean: np.ndarray, std: np.ndarray, augmentation: Augmentation
) -> Callable:
    """Return a function from image indices and random numbers to a batch."""
    # On a machine with a GPU an eager constant would be placed there, and each batch copied back.
    with tf.device("CPU:0"):
        gather, labels = _gatherer(split.images), tf.constant(split.labels, tf.int32)
        mean, std = tf.constant(mean, tf.float32), tf.constant(std, tf.float32)
    # Augmentations pad with 0, so the padding colour is subtracted before them.
    padding = mean if split.padding is None else tf.fill(mean.shape, float(split.padding))

    def assemble(indices: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.cast(gather(indices), tf.float32)
        batch = augmentation(batch - padding, draws)
        return (batch - (mean - padding)) / std, tf.gather(labels, indices)

    return assemble


def _gatherer(images: np.ndarray | StoredImages) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from image indices to images."""
    return (
        images.gather
        if isinstance(images, StoredImages)
        else partial(tf.gather, tf.constant(images))
    )


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # Autotuning delays each new iterator by seconds.
    options.autotune.enabled = False
    options.deterministic = True
    # The automatic policy shards by files; there are none, so it would warn.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(BATCHES_AHEAD).with_options(options)


def _order(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return the order of an epoch; `key` is (seed, epoch)."""
    return tf.random.experimental.stateless_shuffle(
        tf.range(count), _stream(key, _ORDER), alg=_GENERATOR
    )


def _stream(key: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(
        key, tf.constant(number, tf.int64), alg=_GENERATOR
    )


def _check_batch_size(batch_size: int) -> None:
    _check_whole("batch_size", batch_size)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")


def _check_whole(argument: str, value: int) -> None:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not 0 <= value < 2**63:
        raise ValueError(
            f"`{argument}` must be an integer from 0 to 2**63 - 1. Received: {argument}={value!r}"
        )
