"""The control computation, which no change of this package makes faster or slower."""

import time

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
        product, count = np.empty_like(self.matrix), 0
        np.matmul(self.matrix, self.matrix, out=product)
        begin = time.perf_counter()
        while True:
            np.matmul(self.matrix, self.matrix, out=product)
            count += 1
            seconds = time.perf_counter() - begin
            if seconds > SECONDS:
                return 2 * SIZE**3 * count / seconds
