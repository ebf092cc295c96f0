"""The batch of all timed training steps, and the settings of their optimizer."""

import numpy as np

CLASSES = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9


def random_batch(batch_size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random square images of three channels, float32, and random labels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, side, side, 3)).astype(np.float32)
    return images, rng.integers(CLASSES, size=batch_size)
