"""The matrix product of a GPU, with whose rate those of candidates are compared there."""

import time

import tensorflow as tf

from benchmarks.harness.control import SECONDS
from benchmarks.harness.devices import wait_for_device

SIZE = 8192


class GPUMatrixProduct:
    """A float32 matrix product by TensorFlow; without TensorFloat-32, as all candidates."""

    def __init__(self) -> None:
        self.matrix = tf.random.normal([SIZE, SIZE])

    def rate(self) -> float:
        """Return the rate of the product in FLOP/s, over a third of a second."""
        tf.matmul(self.matrix, self.matrix)
        wait_for_device()
        count, begin = 0, time.perf_counter()
        while True:
            tf.matmul(self.matrix, self.matrix)
            wait_for_device()
            count += 1
            seconds = time.perf_counter() - begin
            if seconds > SECONDS:
                return 2 * SIZE**3 * count / seconds
