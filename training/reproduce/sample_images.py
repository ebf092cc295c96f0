"""Pictures of the first test images of a data set."""

from pathlib import Path

import numpy as np
from PIL import Image

from keras_iterconv import datasets
from keras_iterconv.datasets.digitclutter import draw_pictures

COUNT = 12
# Pixels of the picture: the side of an image, of the gap between two, and their grey.
SIDE, GAP, BACKGROUND = 96, 6, 255


def write_samples(path: Path, dataset: str) -> None:
    """Write a picture of the first test images of a data set, side by side.

    Args:
        path: The PNG file to write.
        dataset: Name in `datasets.list_datasets()`.

    Raises:
        DatasetError: The data set is not on this machine, or cannot be read.
    """
    images = [_as_picture(image) for image in _first_images(dataset)]
    sheet = Image.new("RGB", (COUNT * (SIDE + GAP) - GAP, SIDE), (BACKGROUND,) * 3)
    for place, image in enumerate(images):
        sheet.paste(image, (place * (SIDE + GAP), 0))
    sheet.save(path, optimize=True)


def _first_images(dataset: str) -> np.ndarray:
    """Return images, uint8 [COUNT, H, W, C], with values from 0 to 255."""
    prefix, number = dataset[:-1], dataset[-1]
    if prefix == "digitclutter":
        # Drawn here: the reader would generate the complete data set first.
        drawn = draw_pictures(0, int(number), "test", COUNT, workers=0)
        return np.stack([picture for picture, _ in drawn])
    data = datasets.load(dataset)
    return (data.test.images[:COUNT] * (255 / data.scale)).astype(np.uint8)


def _as_picture(image: np.ndarray) -> Image.Image:
    """Return one image of the side `SIDE`, its pixels enlarged without smoothing."""
    image = image[..., 0] if image.shape[-1] == 1 else image
    return Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
