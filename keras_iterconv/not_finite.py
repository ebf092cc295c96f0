"""The search for the block and update at which a sample's state stops being finite."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support import keras_graph
from keras_iterconv.layers.protocol import is_block
from keras_iterconv.unrolling import Status
from keras_iterconv.unrolling.samples import samples_finite


class NotFinite(NamedTuple):
    """The place at which a sample's status first is `unrolling.Status.NOT_FINITE`.

    Attributes:
        sample: The index of the sample in the batch.
        block: The name of the first block with this status; None where all states are finite but
            the model's output is not.
        update: The number of the first update of that block, from 1, with this status; 0 where the
            input of the block is not finite already, and where `block` is None.

    Example:
        >>> ki.NotFinite(sample=17, block="stage2_block4", update=3)
        NotFinite(sample=17, block='stage2_block4', update=3)

    See also:
        `find_not_finite`, which returns them; `unrolling.Status`.
    """

    sample: int
    block: str | None
    update: int


def find_not_finite(model: keras.Model, images: np.ndarray | tf.Tensor) -> list[NotFinite]:
    """Return the samples whose state or output is not finite, and the block where this starts.

    The model runs in evaluation, so that samples do not depend on each other: in training, batch
    normalisation spreads one sample's NaN over the whole batch. A loss may therefore be NaN in
    training while this function finds no sample. The cause is then in the batch's statistics.

    Args:
        model: A functional model.
        images: The model's inputs, `[N, ...]`, or a structure of inputs.

    Returns:
        A `NotFinite` for each such sample, in the order of the batch; an empty list if all states
        and outputs are finite.

    Raises:
        ValueError: The model is not functional, or a block is part of a nested model.

    Example:
        >>> block = ki.NAISDense(4, max_unroll=3, name="block")
        >>> model = ki.IterativeModel(inputs := keras.Input((2,)), block(inputs))
        >>> ki.find_not_finite(model, np.array([[1.0, 2.0], [np.nan, 0.0]]))
        [NotFinite(sample=1, block='block', update=0)]

    See also:
        `NotFinite`; `unrolling.Status`; `with_depth`.
    """
    keras_graph.check_functional(model)
    found: dict[Any, tuple] = {}

    def apply(layer, *args, **kwargs):
        if not is_block(layer):
            return layer(*args, **kwargs)
        state, _, status = layer(*args, **kwargs, return_depth=True)
        new = [n for n in np.flatnonzero(status == Status.NOT_FINITE) if n not in found]
        if new:
            inputs = tf.nest.map_structure(lambda x: tf.gather(x, new), args[0])
            updates = _first_updates(layer, inputs, kwargs)
            found.update((n, (layer.name, k)) for n, k in zip(new, updates, strict=True))
        return state

    inputs = keras_graph.as_inputs(images, keras_graph.input_specs(model))
    for output in tf.nest.flatten(keras_graph.run(model, inputs, apply)):
        for n in np.flatnonzero(~samples_finite(tf.cast(output, tf.float64))):
            found.setdefault(n, (None, 0))
    return [NotFinite(int(n), *found[n]) for n in sorted(found)]


def _first_updates(block: Any, inputs: Any, options: dict) -> list[int]:
    """Return the first update after which each sample's state is not finite, by bisection.

    Args:
        block: The block.
        inputs: Inputs of the block for which its last state is not finite.
        options: The options of `block.run_to`, such as the schedule of a `ResidualStage`.
    """
    finite = tf.stack([samples_finite(x) for x in tf.nest.flatten(inputs)])
    # The update is in (low, high], since all states after one that is not finite are not either.
    low = np.where(tf.reduce_all(finite, axis=0), 0, -1)
    schedule = options.get("schedule")
    last_update = block.max_unroll if schedule is None else len(schedule)
    high = np.where(low < 0, 0, last_update)
    while (high - low > 1).any():
        middle = int(((low + high) // 2)[high - low > 1][0])
        chosen = np.flatnonzero((low < middle) & (middle < high))
        chosen_inputs = tf.nest.map_structure(lambda x, i=chosen: tf.gather(x, i), inputs)
        status = block.run_to(chosen_inputs, middle, block.threshold, **options).status.numpy()
        not_finite = status == Status.NOT_FINITE
        high[chosen[not_finite]], low[chosen[~not_finite]] = middle, middle
    return [int(k) for k in high]


def find_not_finite_variable(variables: Iterable[keras.Variable]) -> keras.Variable | None:
    """Return the first variable that holds a NaN or an infinity."""
    for variable in variables:
        value = tf.convert_to_tensor(variable.value)
        if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
            return variable
    return None
