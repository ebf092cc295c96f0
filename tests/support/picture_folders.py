"""Folders of pictures of two classes, for the tests of own images."""

from pathlib import Path

import numpy as np
from PIL import Image

# A space, an umlaut and a leading dash.
DARK, LIGHT = "-dark ones", "Überhell"


def make_pixels(number, label, shape=(20, 28)):
    """Return the pixels of a picture, uint8 [H, W, 3]: noise that is dark or light."""
    noise = np.random.default_rng(number).integers(0, 90, (*shape, 3))
    return (noise + (160 if label else 5)).astype(np.uint8)


def write_pictures(folder: Path, count=30, shapes=((20, 28), (33, 24)), suffix=".png"):
    """Write `count` pictures of each class, and return the folder."""
    for label, name in enumerate((DARK, LIGHT)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = make_pixels(number, label, shapes[number % len(shapes)])
            Image.fromarray(pixels).save(folder / name / f"-bild ä {number:02}{suffix}")
    return folder
