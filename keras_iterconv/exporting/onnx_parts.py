"""Conversion of the functions of which exported loops are made."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import helper

OPSET = 18


def convert_model(function: Callable, signature: Sequence) -> onnx.ModelProto:
    """Return a converted function; its inputs keep their order, and variables are constants.

    Args:
        function: A function of tensors.
        signature: The named specifications of its arguments.
    """
    function = tf.function(function, input_signature=signature, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
    # The converter omits inputs that the function does not read.
    del model.graph.input[:]
    for spec in signature:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype.as_numpy_dtype))
        model.graph.input.append(helper.make_tensor_value_info(spec.name, kind, spec.shape))
    return model


def convert_graph(function: Callable, signature: Sequence) -> onnx.GraphProto:
    """Return the graph of `convert_model`."""
    return convert_model(function, signature).graph
