"""The matrix product of a GPU, with whose rate those of candidates are compared there."""

import tensorflow as tf

from benchmarks.harness.control import rate_of
from benchmarks.harness.devices import wait_for_device

SIZE = 8192


class GPUMatrixProduct:
    """A float32 matrix product by TensorFlow; without TensorFloat-32, as all candidates."""

    def __init__(self) -> None:
        self.matrix = tf.random.normal([SIZE, SIZE])

    def rate(self) -> float:
        """Return the rate of the product in FLOP/s, over a third of a second."""

        def multiply():
            tf.matmul(self.matrix, self.matrix)
            wait_for_device()

        return rate_of(multiply, SIZE)
