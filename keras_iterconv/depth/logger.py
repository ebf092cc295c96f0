"""What a training says of its depth."""

import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.batches import BATCH_SIZE, labelled_batches
from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.depth_model import iterated_blocks
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.depth.traced_depth import TracedDepth


class DepthLogger(keras.callbacks.Callback):
    """Logs for TensorBoard how deep a net goes, at the end of each epoch.

    It runs the net, in evaluation, on images that stay the same, and changes nothing in it. The
    scalars, by epoch from 0 as `keras.callbacks.TensorBoard` counts them, are

    - `depth/updates`: the mean over images of the updates made in all blocks together,
    - `depth/share_at_limit`: the share of image-blocks that did not converge within `max_unroll`,
    - `depth/share_not_finite`: the share of image-blocks whose state was not finite,
    - `updates_by_block/<name>` and `share_at_limit_by_block/<name>`: the same, block by block.

    Args:
        dataset: The images: an array `[N, ...]`, or whatever `accuracy_by_depth` takes, also
            without an end; labels are ignored. Reading a shuffled data set may move its order on:
            give it images of their own, those of the validation say.
        log_dir: The folder of the logs. Files that are there already stay, and are gone on with.
        samples: The number of images; the first ones are taken, once, and kept in memory.
        frequency: The number of epochs from one log to the next.
        run: Maps a batch of images to a dict with the arrays `"depth"` and `"status"` of
            `with_depth`, for a training that has traced this already; None for a function of the
            logger's own.

    Raises:
        ValueError: An argument is out of its range, or there is no image; and, when training
            starts, the model is none that `with_depth` takes.

    Example:
        >>> logger = DepthLogger(validation_images, "logs/depth")
        >>> model.fit(images, labels, epochs=10, callbacks=[logger])
    """

    def __init__(
        self,
        dataset,
        log_dir: str | os.PathLike,
        samples: int = BATCH_SIZE,
        frequency: int = 1,
        run: Callable[..., dict[str, np.ndarray]] | None = None,
    ):
        super().__init__()
        self.log_dir = os.fspath(log_dir)
        self.samples = check_positive_int("samples", samples)
        self.frequency = check_positive_int("frequency", frequency)
        self._images = _first_images(dataset, self.samples)
        if run is not None and not callable(run):
            raise ValueError(f"`run` must be a function or None. Received: run={run!r}")
        self.run = run
        self._traced = self._traced_model = self._writer = None

    def on_train_begin(self, logs=None):
        if self.run is None and self._traced_model is not self.model:
            self._traced, self._traced_model = TracedDepth(self.model), self.model
        # An event file of its own each time: TensorBoard shows those of one folder as one run.
        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.frequency:
            return
        run = self._traced if self.run is None else self.run
        tally = DepthTally()
        for begin in range(0, len(self._images), BATCH_SIZE):
            outputs = run(self._images[begin : begin + BATCH_SIZE])
            tally.add(outputs["depth"], outputs["status"])
        scalars = {
            "depth/updates": tally.updates,
            "depth/share_at_limit": tally.share_at_limit,
            "depth/share_not_finite": tally.share_not_finite,
        }
        by_block = zip(tally.updates_by_block, tally.share_at_limit_by_block, strict=True)
        for block, numbers in zip(iterated_blocks(self.model), by_block, strict=True):
            for name, number in zip(("updates", "share_at_limit"), numbers, strict=True):
                scalars[f"{name}_by_block/{block.name}"] = number
        # Another callback may have told TensorFlow to leave out most steps.
        with self._writer.as_default(step=epoch), tf.summary.record_if(True):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)
        # A run that is killed keeps what was logged.
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._writer.close()


def _first_images(dataset, samples: int) -> np.ndarray:
    if hasattr(dataset, "shape"):
        dataset = [dataset]
    batches = labelled_batches(dataset, samples)
    parts = [np.asarray(b[0] if isinstance(b, tuple | list) else b) for b in batches]
    if not sum(map(len, parts)):
        raise ValueError("`dataset` must hold at least one image. Received: an empty one")
    return np.concatenate(parts)
