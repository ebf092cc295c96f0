"""Compiled functions of a net and its depth that stay valid when its depth settings change."""

from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.graph_function import shared_functions
from keras_iterconv._support.keras_graph import as_inputs
from keras_iterconv._support.outputs import output_key
from keras_iterconv.depth.block_calls import iterated_blocks
from keras_iterconv.depth.depth_model import with_depth
from keras_iterconv.depth.depth_settings import kinds, read_settings


class TracedDepth:
    """Function that runs a model in evaluation and returns its outputs, depth and status.

    It is traced once for all batch sizes and depth settings, and again where a block changes
    between fixed and adaptive depth: these need different graphs.

    Args:
        model: A model that `with_depth` accepts.

    Attributes:
        output: The key of the model's outputs, `"logits"` or `"outputs"`.
    """

    def __init__(self, model: keras.Model):
        self._blocks = iterated_blocks(model)
        self._view = with_depth(model)
        self.output = output_key(model)
        self._functions: dict[Any, Any] = {}

    def __call__(self, images: Any) -> dict[str, Any]:
        """Return the outputs of the model of `with_depth`, as arrays."""
        fixed = kinds(read_settings(self._blocks))
        if fixed not in self._functions:
            self._functions[fixed] = self._compile()
        inputs = as_inputs(images, self._view.input)
        outputs = self._functions[fixed](inputs)
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), outputs)

    def _compile(self):
        signature = tf.nest.map_structure(
            lambda t: tf.TensorSpec(t.shape, t.dtype), self._view.input
        )

        def run(x):
            with shared_functions():
                return self._view(x, training=False)

        return tf.function(run, input_signature=[signature])
