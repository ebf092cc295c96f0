"""Predictions of a net of adaptive depth, with a new sample in the place of each that stops."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.batches import batches_of_size
from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.block_calls import block_calls
from keras_iterconv.depth.traced_stream import TracedStream
from keras_iterconv.unrolling.refilling import Samples


def predict_stream(model: keras.Model, dataset: Any, batch_size: int = 64) -> dict[str, Any]:
    """Return outputs, depth and status of each sample, from a batch that stays full.

    `predict` ends a batch with the last of its samples. Here the next sample takes the place of one
    that has stopped, so that the time is that of the samples' own updates. The results are those of
    `with_depth(model).predict`, in the order of the data set, up to the rounding of another batch.

    All samples have one shape: sequences of different lengths must be padded, and masked by the
    model. What leads from the inputs to the outputs around the block, such as a skip connection,
    is computed twice.

    Args:
        model: A model that `with_depth` accepts, in which exactly one block has a stopping
            threshold and is called once: a tied `NAISConv2D`, `NAISDense` or `ResidualStage`, or an
            `Iterate` with any stopping rule. Blocks of a fixed depth may be before and behind it.
        dataset: Inputs as an array or, for several inputs, a dict of arrays; or a tuple of these
            and labels; or batches of inputs or of such tuples, e.g. a list or a `tf.data.Dataset`.
            Labels are not read.
        batch_size: Number of samples in the batch.

    Returns:
        The dict of `with_depth(model).predict`, as arrays: `"logits"` or `"outputs"`, `"depth"`,
        int32 `[N, calls]`, and `"status"`, int32 `[N, calls]`.

    Raises:
        ValueError: The model has no such block, or several; the block is untied, has
            `solver="anderson"`, or returns the states after all updates; the samples have
            different shapes; or the data set is empty or infinite.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=100, threshold=1e-2, step_size=0.5, shift=0.3)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> inputs = np.ones((40, 4)) * np.linspace(0, 1, 40)[:, np.newaxis]
        >>> streamed = ki.predict_stream(model, inputs, batch_size=8)
        >>> predicted = ki.with_depth(model).predict(inputs, verbose=0)
        >>> np.array_equal(streamed["depth"], predicted["depth"])
        True

    See also:
        `with_depth`, for any number of blocks; `calibrate_depth`.
    """
    check_positive_int("batch_size", batch_size)
    stream = None
    for chunk in batches_of_size(dataset, batch_size):
        if stream is None:
            stream = Stream(TracedStream(model, adaptive_block(model), chunk), batch_size)
        stream.add(chunk)
    if stream is None:
        raise ValueError("`dataset` must hold at least one sample. Received: an empty data set")
    return stream.end()


class Stream:
    """The samples of one data set on their way through a net.

    Args:
        traced: The parts of the net.
        batch_size: Number of samples in the batch.
    """

    def __init__(self, traced: TracedStream, batch_size: int):
        self._traced, self._batch_size = traced, batch_size
        self._count = 0
        # The inputs of the samples in the loop, which the part behind the block may read.
        self._inputs: dict[int, Any] = {}
        self._inside: Samples | None = None
        self._numbers: list[np.ndarray] = []
        self._outputs: list[Any] = []

    def add(self, chunk: Any) -> None:
        """Take in new samples, and make updates until all of them are in the batch.

        Args:
            chunk: Their inputs, arrays `[n, ...]`, n at most `batch_size`.
        """
        waiting = self._traced.enter(chunk, self._count)
        for n in range(len(waiting.numbers)):
            self._inputs[self._count + n] = tf.nest.map_structure(lambda z, n=n: z[n], chunk)
        self._count += len(waiting.numbers)
        self._advance(_none_of(waiting) if self._inside is None else self._inside, waiting)

    def end(self) -> dict[str, Any]:
        """Return the results of all samples, in their order."""
        while self._inside is not None and len(self._inside.numbers):
            self._advance(self._inside, _none_of(self._inside))
        order = np.argsort(np.concatenate(self._numbers))
        return tf.nest.map_structure(lambda *z: np.concatenate(z)[order], *self._outputs)

    def _advance(self, inside: Samples, waiting: Samples) -> None:
        self._inside, stopped = self._traced.advance(inside, waiting, self._batch_size)
        numbers = stopped.numbers.numpy()
        if not len(numbers):
            return
        samples = [self._inputs.pop(number) for number in numbers.tolist()]
        inputs = tf.nest.map_structure(lambda *z: np.stack(z), *samples)
        self._numbers.append(numbers)
        self._outputs.append(self._traced.leave(inputs, stopped))


def _none_of(samples: Samples) -> Samples:
    return tf.nest.map_structure(lambda z: z[:0], samples)


def adaptive_block(model: keras.Model) -> Any:
    """Return the one block of a model whose samples stop by themselves.

    Raises:
        ValueError: The model has no such block or several, or it cannot be streamed.
    """
    calls = block_calls(model)
    found = [call for call in calls if call.block.adjustable and call.block.threshold is not None]
    if len(found) != 1:
        raise ValueError(
            "`model` must have one call of one block with a stopping threshold; use "
            f"`with_depth(model).predict` for others. Received: model={model.name!r} with "
            f"{len(found)} such calls, {[call.path for call in found]}"
        )
    (call,) = found
    reason = call.block.cannot_stream
    if reason is not None:
        raise ValueError(
            f"The block {call.path!r} of `model` cannot be streamed: {reason}. Use "
            f"`with_depth(model).predict`. Received: model={model.name!r}"
        )
    return call.block
