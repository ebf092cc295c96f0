"""Where in a net a sample's state stops being finite."""

from collections.abc import Iterable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support import keras_graph
from keras_iterconv.layers import IteratedBlock, ResidualStage, ResidualUpdate
from keras_iterconv.unrolling import Status
from keras_iterconv.unrolling.samples import samples_finite


class NotFinite(NamedTuple):
    """Where a sample's status first was `keras_iterconv.unrolling.Status.NOT_FINITE`.

    Attributes:
        sample: Its index in the batch.
        block: The name of the first block whose state was not finite; None where all states are
            finite and the model's output is not.
        update: The first update of that block, counted from 1, after which it was; 0 where the
            block's input was not finite already, and where there is no block.
    """

    sample: int
    block: str | None
    update: int


def find_not_finite(model: keras.Model, images) -> list[NotFinite]:
    """Return the samples whose state or output is not finite, and where that began.

    The model runs in evaluation, so that samples do not depend on each other: in training, batch
    normalisation spreads one sample's NaN over its batch. A loss that is not finite in training
    may therefore have no such sample; the batch's statistics are the cause then.

    Args:
        model: A functional model.
        images: Its inputs, `[N, ...]`, or a structure of them.

    Returns:
        A `NotFinite` for each such sample, in the order of the batch; an empty list where all is
        finite.

    Raises:
        ValueError: The model is not functional, or a block lies in a model within the model.

    Example:
        >>> find_not_finite(model, images)
        [NotFinite(sample=17, block='stage2_block4', update=3)]
    """
    keras_graph.check_functional(model)
    found = {}

    def apply(layer, *args, **kwargs):
        if not isinstance(layer, (IteratedBlock, ResidualStage, ResidualUpdate)):
            return layer(*args, **kwargs)
        state, _, status = layer(*args, **kwargs, return_depth=True)
        new = [n for n in np.flatnonzero(status == Status.NOT_FINITE) if n not in found]
        if new:
            inputs = tf.nest.map_structure(lambda x: tf.gather(x, new), args[0])
            updates = _first_updates(layer, inputs, kwargs.get("schedule"))
            found.update((n, (layer.name, k)) for n, k in zip(new, updates, strict=True))
        return state

    wanted = model.inputs[0] if len(model.inputs) == 1 else model.input
    inputs = tf.nest.map_structure(lambda x, t: tf.cast(x, t.dtype), images, wanted)
    for output in tf.nest.flatten(keras_graph.run(model, inputs, apply)):
        for n in np.flatnonzero(~samples_finite(tf.cast(output, tf.float64))):
            found.setdefault(n, (None, 0))
    return [NotFinite(int(n), *found[n]) for n in sorted(found)]


def _first_updates(block, inputs, schedule) -> list[int]:
    """Return for samples that a block leaves not finite the first update after which they were."""
    finite = tf.stack([samples_finite(x) for x in tf.nest.flatten(inputs)])
    # An update lies in (low, high]; a state that is not finite stays so.
    low = np.where(tf.reduce_all(finite, axis=0), 0, -1)
    high = np.where(low < 0, 0, block.max_unroll if schedule is None else len(schedule))
    while (high - low > 1).any():
        middle = int(((low + high) // 2)[high - low > 1][0])
        chosen = np.flatnonzero((low < middle) & (middle < high))
        part = tf.nest.map_structure(lambda x, rows=chosen: tf.gather(x, rows), inputs)
        bad = _status(block, part, middle, schedule) == Status.NOT_FINITE
        high[chosen[bad]], low[chosen[~bad]] = middle, middle
    return [int(k) for k in high]


def _status(block, inputs, updates: int, schedule) -> np.ndarray:
    """Return the status of samples after the first updates of a block of several, `[n]`."""
    if isinstance(block, ResidualStage):
        schedule = range(block.blocks) if schedule is None else schedule
        return block(inputs, schedule=schedule[:updates], return_depth=True).status.numpy()
    inputs = tf.cast(inputs, block.compute_dtype)
    update, state = block.build_update(inputs), block.make_initial_state(inputs)
    return block.iterate(update, state, updates, block.threshold or 0.0).status.numpy()


def find_not_finite_variable(variables: Iterable[keras.Variable]) -> keras.Variable | None:
    """Return the first variable that holds a NaN or an infinity."""
    for variable in variables:
        value = tf.convert_to_tensor(variable.value)
        if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
            return variable
    return None
