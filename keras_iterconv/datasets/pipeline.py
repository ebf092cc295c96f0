"""Batches for training and for evaluation, from images held in memory."""

import numpy as np
import tensorflow as tf

from keras_iterconv.datasets.augmentation import DRAWS, Augmentation, get_augmentation
from keras_iterconv.datasets.image_data import Split

# Two batches in the making use two cores; more would take them from the training step.
PARALLEL_BATCHES = 2
BATCHES_AHEAD = 4
# Which random numbers an epoch's order and its augmentation are made from.
_ORDER, _DRAWS = 0, 1
_GENERATOR = "philox"  # The automatic choice may differ between devices.


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """How many full batches an epoch has; the rest of its order is dropped.

    Args:
        split: The training part.
        batch_size: Images a batch.

    Raises:
        ValueError: If the batch size is not a positive whole number, or no batch can be filled.
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
) -> tf.data.Dataset:
    """Shuffled, augmented and standardised batches without end, one epoch after the other.

    Give Keras `steps_per_epoch=steps_per_epoch(split, batch_size)`: it then keeps one iterator for
    the whole run, where a new one each epoch would stall.

    The order of an epoch is a function of (seed, epoch), and the augmentation of a sample one of
    (seed, epoch, sample number). A run resumed at a step therefore sees, bit for bit, the
    batches of an uninterrupted run. The samples at the end of an epoch's order that fill no batch
    are left out; each epoch leaves out others.

    Grey images are padded with 0, the black around a digit, and colour images with the mean.

    Args:
        split: The training part; its images, uint8 [N, H, W, C], are copied once.
        mean: float32 [C], subtracted from each channel, in raw values.
        std: float32 [C], each channel is divided by it.
        batch_size: Images a batch.
        seed: The training seed, a whole number of at most 63 bits.
        augment: A name in `AUGMENTATIONS`.
        initial_epoch: The epoch to start at, from 0.
        initial_step: The step of this epoch to start at, from 0; the images before it are not read.

    Returns:
        A dataset of `(images float32 [batch_size, H, W, C], labels int32 [batch_size])`; the labels
        are int32 [batch_size, classes] where a label is a set of classes.

    Raises:
        ValueError: If an argument is out of range or the augmentation unknown.
        MissingExtraError: If the augmentation needs a package that is not installed.
    """
    steps = steps_per_epoch(split, batch_size)
    _check_whole("seed", seed)
    _check_whole("initial_epoch", initial_epoch)
    _check_whole("initial_step", initial_step)
    augmentation = get_augmentation(augment)
    assemble = _assembler(split, mean, std, augmentation)
    count, used = len(split), steps * batch_size

    def rows_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = _order(key, count)[:used]
        draws = tf.random.stateless_uniform([count, DRAWS], _stream(key, _DRAWS), alg=_GENERATOR)
        return tf.data.Dataset.from_tensor_slices(
            (
                tf.reshape(order, [steps, batch_size]),
                tf.reshape(tf.gather(draws, order), [steps, batch_size, DRAWS]),
            )
        )

    dataset = tf.data.Dataset.counter(initial_epoch).flat_map(rows_of_epoch).skip(initial_step)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return _finish(dataset.map(assemble, num_parallel_calls=PARALLEL_BATCHES))


def batch_numbers(split: Split, *, batch_size: int, seed: int, epoch: int, step: int) -> np.ndarray:
    """Return which images are in a batch of `training_batches`.

    Args:
        split: The training part.
        batch_size: Images a batch.
        seed: The training seed.
        epoch: The epoch, from 0.
        step: The step of the epoch, from 0.

    Returns:
        int32 [batch_size], the images' numbers in the training part, from 0.
    """
    key = tf.constant([seed, epoch], tf.int64)
    return _order(key, len(split)).numpy()[step * batch_size : (step + 1) * batch_size]


def evaluation_batches(
    split: Split, *, mean: np.ndarray, std: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """Standardised batches in the split's own order, once; the last may be smaller.

    Args:
        split: Any part.
        mean: float32 [C], that of the training part.
        std: float32 [C], that of the training part.
        batch_size: Images a batch; may be larger than the split.

    Returns:
        A dataset of `(images float32 [B, H, W, C], labels int32 [B])`, B at most `batch_size`; the
        labels are int32 [B, classes] where a label is a set of classes.

    Raises:
        ValueError: If the batch size is not a positive whole number.
    """
    _check_batch_size(batch_size)
    assemble = _assembler(split, mean, std, get_augmentation("none"))
    draws = tf.zeros([0, DRAWS])
    dataset = tf.data.Dataset.range(len(split), output_type=tf.int32).batch(batch_size)
    dataset = dataset.map(lambda rows: assemble(rows, draws), num_parallel_calls=PARALLEL_BATCHES)
    return _finish(dataset)


def _assembler(split: Split, mean: np.ndarray, std: np.ndarray, augmentation: Augmentation):
    """Return a function that makes a batch from sample numbers and random numbers."""
    # Where there is a GPU, an eager constant would go there, and every batch back again.
    with tf.device("CPU:0"):
        images, labels = tf.constant(split.images), tf.constant(split.labels, tf.int32)
        mean, std = tf.constant(mean, tf.float32), tf.constant(std, tf.float32)
    # Augmentations pad with 0, so the images are moved to where 0 is the colour to pad with.
    padding = mean if split.images.shape[-1] > 1 else tf.zeros_like(mean)

    def assemble(rows: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.cast(tf.gather(images, rows), tf.float32)
        batch = augmentation(batch - padding, draws)
        return (batch - (mean - padding)) / std, tf.gather(labels, rows)

    return assemble


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # Autotuning stalls for seconds whenever an iterator is made.
    options.autotune.enabled = False
    options.deterministic = True
    # The automatic policy looks for files to shard by, of which there are none, and warns.
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
            f"`{argument}` must be a whole number from 0 to 2**63 - 1. "
            f"Received: {argument}={value!r}"
        )
