"""A net in three compiled parts: into its adaptive block, the updates, and out of it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.keras_graph import as_inputs
from keras_iterconv.depth.depth_model import with_depth
from keras_iterconv.unrolling import Unrolled
from keras_iterconv.unrolling.refilling import REFILL_COST, Samples, Stopped, run_refilled
from keras_iterconv.unrolling.samples import batch_size, norm_dtype


class TracedStream:
    """The parts of a net around its adaptive block, each traced once for all batch sizes.

    The first and the last part are traces of the whole net in which another function takes the
    place of the block. TensorFlow does not run the operations on which their results do not depend.

    Args:
        model: A model that `with_depth` accepts.
        block: Its adaptive block, which the model calls once.
        inputs: Inputs of some samples, arrays `[n, ...]`; only their shapes count.
        refill_cost: Assumed cost of a refill, in updates of the whole batch.
    """

    def __init__(
        self, model: keras.Model, block: Any, inputs: Any, refill_cost: float = REFILL_COST
    ):
        self._block, self._refill_cost = block, refill_cost
        self._view = with_depth(model)
        specs = tf.nest.map_structure(
            lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), self._cast(inputs)
        )
        # What `_begin` and `_end` leave to, and take from, the functions that are being traced.
        self._update: Any = None
        self._rule: Any = None
        self._passed: Any = None
        number = tf.TensorSpec([], tf.int64)
        self._enter = tf.function(self._samples_of, [specs, number], autograph=False)
        with _replaced_call(block, self._begin):
            entering = self._enter.get_concrete_function().structured_outputs
        samples, self.weights = tf.nest.map_structure(
            lambda z: tf.TensorSpec(z.shape, z.dtype), entering
        )
        size = tf.TensorSpec([], tf.int32)
        self._advance = tf.function(
            self._updated, [self.weights, samples, samples, size], autograph=False
        )
        values = tf.TensorSpec([None], norm_dtype(samples.x))
        stopped = Stopped(samples.numbers, samples.k, samples.x, values)
        self._leave = tf.function(self._outputs_of, [specs, stopped], autograph=False)
        with _replaced_call(block, self._end):
            self._leave.get_concrete_function()

    def enter(self, inputs: Any, first: int) -> Samples:
        """Return new samples at x(0).

        Args:
            inputs: Their inputs, arrays `[n, ...]`.
            first: The number of the first of them.
        """
        samples, self.weights = self._enter(self._cast(inputs), tf.constant(first, tf.int64))
        return samples

    def advance(self, inside: Samples, waiting: Samples, size: int) -> tuple[Samples, Stopped]:
        """Return the samples in a batch of `size`, and those that have stopped: `run_refilled`."""
        return self._advance(self.weights, inside, waiting, tf.constant(size))

    def leave(self, inputs: Any, stopped: Stopped) -> dict[str, Any]:
        """Return outputs, depth and status of samples that have stopped, as arrays.

        Args:
            inputs: Their inputs, arrays `[n, ...]`.
            stopped: Their last states.
        """
        outputs = self._leave(self._cast(inputs), stopped)
        return tf.nest.map_structure(lambda z: z.numpy(), outputs)

    def _cast(self, inputs: Any) -> Any:
        return as_inputs(tf.nest.map_structure(np.asarray, inputs), self._view.input)

    def _samples_of(self, inputs: Any, first: tf.Tensor) -> tuple[Samples, tuple]:
        self._view(inputs, training=False)
        (x, drives, memory), weights = self._passed
        count = batch_size(x)
        numbers = first + tf.range(tf.cast(count, tf.int64), dtype=tf.int64)
        return Samples(numbers, tf.zeros([count], tf.int32), x, drives, memory), weights

    def _begin(
        self,
        inputs: Any,
        mask: Any = None,
        training: Any = None,
        return_depth: bool = True,
        **options: Any,
    ) -> Unrolled:
        """Take the place of the block where samples enter it."""
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise ValueError(
                f"The block {self._block.name!r} of `model` must be called without the argument "
                f"{', '.join(given)}, which fixes its updates. Use `with_depth(model).predict`"
            )
        mask = _first_of(mask)
        state = self._block.make_initial_state(inputs)
        bound, self._rule = self._block.bind(state, inputs, mask)
        bound = bound.with_drives()
        self._update = bound.update
        memory = self._rule.begin(state, bound.weights, bound.drives)
        self._passed = (state, bound.drives, memory), bound.weights
        # The layers behind the block are traced with it, and not run.
        return self._block.as_outputs(Unrolled.fixed(state, tf.constant(0)), mask)

    def _updated(
        self, weights: tuple, inside: Samples, waiting: Samples, size: tf.Tensor
    ) -> tuple[Samples, Stopped]:
        max_unroll, threshold = (tf.convert_to_tensor(v) for v in self._block.depth_variables)
        return run_refilled(
            self._update.bind(weights),
            inside,
            waiting,
            size,
            max_unroll,
            threshold,
            self._rule,
            self._block.min_unroll,
            self._refill_cost,
        )

    def _outputs_of(self, inputs: Any, stopped: Stopped) -> dict[str, Any]:
        self._passed = stopped
        return self._view(inputs, training=False)

    def _end(self, inputs: Any, mask: Any = None, **_: Any) -> Unrolled:
        """Take the place of the block where samples leave it."""
        stopped, (_, threshold) = self._passed, self._block.depth_variables
        unrolled = Unrolled.adaptive(
            stopped.x,
            stopped.k,
            stopped.values,
            tf.convert_to_tensor(threshold),
            self._rule,
            self._block.min_unroll,
        )
        return self._block.as_outputs(unrolled, _first_of(mask))


def _first_of(mask: Any) -> Any:
    """Return the mask of the first input that has one; None without one."""
    return next((z for z in keras.tree.flatten(mask) if z is not None), None)


@contextlib.contextmanager
def _replaced_call(layer: keras.layers.Layer, call: Callable) -> Iterator[None]:
    """Let Keras run another function in place of a layer's `call`, in this context.

    Keras prepares its arguments, and the mask of its outputs, as of the layer itself.
    """
    layer.call = call
    try:
        yield
    finally:
        del layer.call
