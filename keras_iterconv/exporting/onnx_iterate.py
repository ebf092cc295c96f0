"""The loops of `Iterate` in ONNX: any update, on a state of several tensors, by any rule."""

from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf

from keras_iterconv._support.private_keras import mask_of, set_mask
from keras_iterconv.exporting.onnx_graph import fold_constants, place_constants, simplify
from keras_iterconv.exporting.onnx_loops import make_loop
from keras_iterconv.exporting.onnx_parts import convert_graph
from keras_iterconv.layers import Iterate


def convert_iterate(layer: Iterate, inputs: Any) -> onnx.GraphProto:
    """Return the graph of a layer.

    Args:
        layer: A built layer in float32.
        inputs: Its inputs, symbolic tensors `[N, ...]` in their structure.

    Returns:
        A graph from the inputs, their mask as numbers if they carry one, `max_unroll` and, for
        adaptive depth, the threshold to the tensors of the state, depth and status. The weights
        are constants.
    """
    parts = _Parts(layer, inputs)
    adaptive = layer.threshold is not None
    k, bound = tf.TensorSpec((), tf.int64, "k"), tf.TensorSpec((), tf.float32, "bound")
    signature = [*parts.specs["state"], k, *parts.specs["drives"]]
    if adaptive:
        signature += [*parts.specs["memory"], bound]
    start = convert_graph(parts.start, parts.specs["inputs"])
    update = convert_graph(parts.update, signature)
    graph = make_loop(start, update, parts.specs, adaptive)
    simplify(graph)
    fold_constants(graph)
    place_constants(graph)
    return graph


class _Parts:
    """The functions that replace the operators of a template, and the tensors they exchange.

    Attributes:
        specs: The specifications of the tensors of each group: `"inputs"`, `"state"`, `"drives"`
            and `"memory"`.
    """

    def __init__(self, layer: Iterate, inputs: Any):
        self.layer, self.inputs = layer, inputs
        self.adaptive = layer.threshold is not None
        mask = mask_of(inputs)
        flat = [*keras.tree.flatten(inputs), *([] if mask is None else [mask])]
        self.masked = mask is not None
        specs = [tf.TensorSpec(z.shape, tf.float32, f"u{n}") for n, z in enumerate(flat)]
        self._groups: dict[str, Any] = {}
        tf.function(self.start, input_signature=specs, autograph=False).get_concrete_function()
        self.specs = {"inputs": specs}
        for name, letter in (("state", "x"), ("drives", "d"), ("memory", "m")):
            self.specs[name] = [
                tf.TensorSpec((None, *z.shape[1:]), z.dtype, f"{letter}{n}")
                for n, z in enumerate(tf.nest.flatten(self._groups[name]))
            ]

    def start(self, *flat: tf.Tensor) -> tuple:
        """Return x(0), the drives and, of an adaptive depth, the memory of the rule, flat."""
        values = flat[:-1] if self.masked else flat
        mask = flat[-1] > 0 if self.masked else None
        inputs = keras.tree.pack_sequence_as(self.inputs, values)
        if mask is not None:
            for tensor in values:
                set_mask(tensor, mask)
        state = self.layer.make_initial_state(inputs)
        bound, rule = self.layer.bind(state, inputs, mask)
        memory = rule.begin(state, bound.weights, bound.drives) if self.adaptive else ()
        drives = bound.drives
        self._groups = {"state": state, "drives": drives, "memory": memory}
        found = [state, drives, memory] if self.adaptive else [state, drives]
        return tuple(tf.nest.flatten(found))

    def update(self, *flat: tf.Tensor) -> tuple:
        """Return the state after an update and, of an adaptive depth, the memory and the excess."""
        values = iter(flat)

        def take(group):
            found = [next(values) for _ in tf.nest.flatten(self._groups[group])]
            return tf.nest.pack_sequence_as(self._groups[group], found)

        state, k, drives = take("state"), tf.cast(next(values), tf.int32), take("drives")
        sample = keras.tree.map_structure(
            lambda z: tf.zeros([1, *(size or 1 for size in z.shape[1:])]), self.inputs
        )
        mask = tf.ones([1, 1], tf.bool) if self.masked else None
        bound, rule = self.layer.bind(state, sample, mask)
        bound = bound._replace(drives=drives)
        new, change = bound.step(state, k)
        if not self.adaptive:
            return tuple(tf.nest.flatten(new))
        memory, threshold = take("memory"), next(values)
        value, memory = rule.measure(change, new, memory, bound.weights, bound.drives)
        finite = tf.math.is_finite(value)
        moves = rule.goes_on(value, threshold)
        if self.layer.min_unroll > 1:
            moves |= finite & (k + 1 < self.layer.min_unroll)
        excess = tf.where(moves, 0.0, tf.where(finite, -1.0, np.nan))
        return *tf.nest.flatten(new), *tf.nest.flatten(memory), excess
