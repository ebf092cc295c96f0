"""The number of operations that a function executes in convolutions and matrix products."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Not public. The profiler's count is, but it does not look into loops and functions.
from tensorflow.python.framework import op_callbacks

# Any operator of these names must have a rule below.
_PRODUCT = re.compile("Conv|MatMul|Einsum|Fused.*(Dense|Linear)")


def count_operations(function: Callable[[], Any]) -> int:
    """Return the number of operations that a call executes; a multiply-add counts as two.

    The call runs eagerly, so that the body of a loop counts as often as it runs. Only convolutions
    and matrix products count, with products by the zeros of the padding; everything else is of the
    size of a state or of the weights. What a method computes twice counts twice. A gradient that
    nothing reads counts too, although a graph would leave it out: that of a net's images.

    Args:
        function: A function of TensorFlow's eager operators, or a `tf.function`.

    Raises:
        ValueError: The function executes a product that has no rule here.
    """
    total = 0

    def add(op_type, inputs, attributes, outputs, op_name=None, graph=None):
        nonlocal total
        name = tf.compat.as_str(op_type)
        # With a graph, an operator is only added to it.
        if graph is None and _PRODUCT.search(name):
            if name not in _RULES:
                raise ValueError(f"`function` must execute only products of known size, not {name}")
            total += _RULES[name](inputs, outputs)

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(add)
    try:
        function()
    finally:
        op_callbacks.remove_op_callback(add)
        tf.config.run_functions_eagerly(before)
    return total


def _of_conv(kernel: tf.Tensor, images: tf.Tensor) -> int:
    """Return the size of a convolution by its kernel and by the images that it gives, NHWC."""
    return 2 * math.prod(kernel.shape) * math.prod(images.shape[:3])


def _of_product(inputs: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor]) -> int:
    """Return the size of a product of matrices, whichever of them are transposed."""
    rows = outputs[0].shape[-2]
    inner = math.prod(inputs[0].shape[-2:]) // rows
    return 2 * math.prod(outputs[0].shape) * inner


_RULES = {
    "Conv2D": lambda inputs, outputs: _of_conv(inputs[1], outputs[0]),
    "Conv2DBackpropInput": lambda inputs, outputs: _of_conv(inputs[1], inputs[2]),
    "Conv2DBackpropFilter": lambda inputs, outputs: _of_conv(outputs[0], inputs[2]),
    "MatMul": _of_product,
    "BatchMatMulV2": _of_product,
}
