"""The control computation, which no change of this package makes faster or slower."""

import time
from collections.abc import Callable

import numpy as np

SIZE = 2048
SECONDS = 0.3


class MatrixProduct:
    """A float32 matrix product by NumPy on all cores."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.matrix = rng.normal(size=(SIZE, SIZE)).astype(np.float32)

    def rate(self) -> float:
        """Return the rate of the product in FLOP/s, over a third of a second."""
        product = np.empty_like(self.matrix)
        return rate_of(lambda: np.matmul(self.matrix, self.matrix, out=product), SIZE)


def rate_of(multiply: Callable[[], object], size: int) -> float:
    """Return the rate of a product of two square matrices in FLOP/s, after one untimed product.

    Args:
        multiply: The product, a function without arguments that returns when it is computed.
        size: Number of rows of the matrices.
    """
    multiply()
    count, begin = 0, time.perf_counter()
    while True:
        multiply()
        count += 1
        seconds = time.perf_counter() - begin
        if seconds > SECONDS:
            return 2 * size**3 * count / seconds
