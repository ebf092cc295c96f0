"""A callback that logs the depth of a net during training."""

import os
from collections.abc import Callable
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.batches import BATCH_SIZE, labelled_batches
from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.block_calls import block_calls, check_has_blocks
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.depth.traced_depth import TracedDepth


class DepthLogger(keras.callbacks.Callback):
    """Callback that logs the depth of a net for TensorBoard at the end of each epoch.

    It runs the net in evaluation, always on the same images, and does not change it. The scalars
    are logged by epoch from 0, as by `keras.callbacks.TensorBoard`:

    - `depth/updates`: the number of updates in all blocks together, mean over images,
    - `depth/share_at_limit`: the share of (image, block) pairs that did not converge
      within `max_unroll`,
    - `depth/share_not_finite`: the share of (image, block) pairs whose state was not finite,
    - `updates_by_block/<path>` and `share_at_limit_by_block/<path>`: the same, one for each call of
      a block, with the path of `block_calls`.

    Args:
        dataset: The images: an array `[N, ...]`, a dict of arrays, or any data set for
            `accuracy_by_depth`, which may be infinite; labels are ignored. Reading a shuffled data
            set can change the order of its next epoch, so pass other images than the training
            data, for example the validation images.
        log_dir: Folder of the logs. Existing event files stay, and TensorBoard shows them with the
            new one as one run.
        samples: Number of images, from the first on; they are read once and kept in memory.
        frequency: Number of epochs from one log to the next.
        run: Function from a batch of images to a dict with the arrays `"depth"` and `"status"` of
            `with_depth`, where such a function is already traced. None for a new one.

    Raises:
        ValueError: An argument is out of its range, or there is no image; or, when training
            starts, the model has no block.

    Example:
        >>> block = ki.NAISDense(8, threshold=1e-2)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> inputs = np.random.default_rng(0).normal(size=(32, 4))
        >>> logger = ki.DepthLogger(inputs, "logs/depth")
        >>> history = model.fit(inputs, np.zeros((32, 2)), verbose=0, callbacks=[logger])
        >>> len(tf.io.gfile.glob("logs/depth/events*"))  # show them by `tensorboard --logdir logs`
        1

    See also:
        `with_depth`; `block_calls`, which names the blocks; `UnrollSchedule`.
    """

    def __init__(
        self,
        dataset: Any,
        log_dir: str | os.PathLike,
        samples: int = BATCH_SIZE,
        frequency: int = 1,
        run: Callable[..., dict[str, np.ndarray]] | None = None,
    ):
        super().__init__()
        self.log_dir = os.fspath(log_dir)
        self.samples = check_positive_int("samples", samples)
        self.frequency = check_positive_int("frequency", frequency)
        self._batches = _first_batches(dataset, self.samples)
        if run is not None and not callable(run):
            raise ValueError(f"`run` must be a function or None. Received: run={run!r}")
        self.run = run
        self._traced: TracedDepth | None = None
        self._traced_model: keras.Model | None = None
        self._writer: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        check_has_blocks(self.model)
        # A subclassed model is built by its first step.
        if self.model.built:
            self._trace()
        # A new event file for each training: TensorBoard shows all files of a folder as one run.
        self._writer = tf.summary.create_file_writer(self.log_dir)

    def _trace(self) -> None:
        if self.run is None and self._traced_model is not self.model:
            self._traced, self._traced_model = TracedDepth(self.model), self.model

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if (epoch + 1) % self.frequency:
            return
        self._trace()
        run = cast(Callable, self._traced if self.run is None else self.run)
        tally = DepthTally()
        for batch in self._batches:
            outputs = run(batch)
            tally.add(outputs["depth"], outputs["status"])
        scalars = {
            "depth/updates": tally.updates,
            "depth/share_at_limit": tally.share_at_limit,
            "depth/share_not_finite": tally.share_not_finite,
        }
        by_block = zip(tally.updates_by_block, tally.share_at_limit_by_block, strict=True)
        for call, numbers in zip(block_calls(self.model), by_block, strict=True):
            for name, number in zip(("updates", "share_at_limit"), numbers, strict=True):
                scalars[f"{name}_by_block/{call.path}"] = number
        # Another callback may have set a default that records only some steps.
        with self._writer.as_default(step=epoch), tf.summary.record_if(True):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)
        # What was logged survives if the process is killed.
        self._writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._writer.close()


def _first_batches(dataset: Any, samples: int) -> list:
    """Return the first images of a data set, in batches of their structure."""
    if hasattr(dataset, "shape") or isinstance(dataset, dict):
        count = min(samples, len(tf.nest.flatten(dataset)[0]))
        images = [
            tf.nest.map_structure(lambda z, n=n: z[n : min(n + BATCH_SIZE, count)], dataset)
            for n in range(0, count, BATCH_SIZE)
        ]
    else:
        batches = labelled_batches(dataset, samples)
        images = [batch[0] if isinstance(batch, tuple | list) else batch for batch in batches]
    images = [tf.nest.map_structure(np.asarray, batch) for batch in images]
    if not any(len(tf.nest.flatten(batch)[0]) for batch in images):
        raise ValueError("`dataset` must hold at least one image. Received: an empty data set")
    return images
