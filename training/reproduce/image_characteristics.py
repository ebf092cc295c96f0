"""What can be seen in an image: how blue it is, how textured its background, how large its object.

The last two are guesses from the frame of an image, its outermost pixels: these are taken to show
the background.
"""

import numpy as np

# The width of the frame, as a share of the side of an image.
FRAME = 1 / 8
# The share of the frame's pixels that are as near to its median colour as the background.
BACKGROUND = 0.9


def blueness(pictures: np.ndarray) -> np.ndarray:
    """Return the blue of each image less the mean of its red and green, `[N]`; 0 for grey.

    Args:
        pictures: Colour images, float `[N, H, W, 3]`, from 0 to 1.
    """
    colour = pictures.mean(axis=(1, 2), dtype=np.float64)
    return colour[:, 2] - colour[:, :2].mean(axis=1)


def background_texture(pictures: np.ndarray) -> np.ndarray:
    """Return the mean difference of neighbouring pixels in the frame of each image, `[N]`.

    Args:
        pictures: Images, float `[N, H, W, C]`, from 0 to 1.
    """
    grey = pictures.mean(axis=-1, dtype=np.float64)
    frame = _frame(grey.shape[1:])
    differences = []
    for axis in (0, 1):
        both = np.logical_and(*_neighbours(frame, axis))
        first, second = _neighbours(grey, axis + 1)
        differences.append(np.abs(first - second)[:, both])
    return np.concatenate(differences, axis=1).mean(axis=1)


def object_size(pictures: np.ndarray) -> np.ndarray:
    """Return the share of each image that differs from its background in colour, `[N]`.

    A pixel differs if it is farther from the median colour of the frame than `BACKGROUND` of the
    pixels of the frame.

    Args:
        pictures: Images, float `[N, H, W, C]`, from 0 to 1.
    """
    frame = _frame(pictures.shape[1:3])
    median = np.median(pictures[:, frame], axis=1)[:, None, None]
    distance = np.linalg.norm(pictures - median, axis=-1)
    limit = np.quantile(distance[:, frame], BACKGROUND, axis=1)
    return np.mean(distance[:, ~frame] > limit[:, None], axis=1)


def _frame(side: tuple[int, ...]) -> np.ndarray:
    """Return the mask of the frame of an image of `side`, height and width."""
    height, width = (max(1, round(FRAME * size)) for size in side)
    frame = np.ones(side, bool)
    frame[height:-height, width:-width] = False
    return frame


def _neighbours(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values without the last and without the first along an axis."""
    count = values.shape[axis]
    return np.take(values, range(count - 1), axis), np.take(values, range(1, count), axis)
