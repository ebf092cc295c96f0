"""Conversion of the functions of which exported loops are made."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import helper, numpy_helper

from keras_iterconv.exporting.onnx_graph import all_graphs

OPSET = 18
# TensorFlow's operations that the converter leaves: an operator, whether its result is subtracted
# from 1, else 1 from it. Those of exact GELU and of ELU, CELU and SELU.
_WITH_ONE = {"Erfc": ("Erf", True), "Expm1": ("Exp", False)}


def convert_model(function: Callable, signature: Sequence) -> onnx.ModelProto:
    """Return a converted function; its inputs keep their order, and variables are constants.

    Args:
        function: A function of tensors.
        signature: The named specifications of its arguments.
    """
    traced = tf.function(function, input_signature=signature, autograph=False)
    captured = {
        inner.name: value
        for value, inner in traced.get_concrete_function().graph.captures
        if value.dtype != tf.resource
    }
    model, _ = tf2onnx.convert.from_function(traced, signature, opset=OPSET)
    graph = model.graph
    # The converter makes inputs of tensors that the function reads without being given them, such
    # as the mean of a `Normalization`.
    for name in [value.name for value in graph.input if value.name in captured]:
        graph.initializer.append(numpy_helper.from_array(captured[name].numpy(), name))
    # It omits inputs that the function does not read.
    del graph.input[:]
    for spec in signature:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype.as_numpy_dtype))
        graph.input.append(helper.make_tensor_value_info(spec.name, kind, spec.shape))
    _write_with_one(graph)
    return model


def _write_with_one(graph: onnx.GraphProto) -> None:
    """Write the operations of `_WITH_ONE` by operators of ONNX."""
    for part in all_graphs(graph):
        nodes = []
        for node in part.node:
            if node.op_type not in _WITH_ONE:
                nodes.append(node)
                continue
            operator, from_one = _WITH_ONE[node.op_type]
            (result,) = node.output
            one, value = f"{result}/one", f"{result}/value"
            part.initializer.append(numpy_helper.from_array(np.array(1, np.float32), one))
            terms = [one, value] if from_one else [value, one]
            nodes.append(helper.make_node(operator, node.input, [value]))
            nodes.append(helper.make_node("Sub", terms, [result]))
        del part.node[:]
        part.node.extend(nodes)


def convert_graph(function: Callable, signature: Sequence) -> onnx.GraphProto:
    """Return the graph of `convert_model`."""
    return convert_model(function, signature).graph
