"""Drawn digits of every kind: which of them the zoo's adaptive MNIST net reads."""

import json
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from export import predict

ZOO = Path(__file__).parents[2] / "saved_models"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SANS, SERIF, STIX = "DejaVuSans.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf"
BLACK, WHITE, CLEAR = (0, 0, 0, 255), (255, 255, 255, 255), (0, 0, 0, 0)
GREY, SILVER = (90, 90, 90, 255), (190, 190, 190, 255)
NAVY, CREAM = (20, 30, 120, 255), (250, 245, 230, 255)


class Drawing(NamedTuple):
    """A digit, its font, the picture's width and height, the digit's centre and height as shares
    of the picture, the colours of ink and ground, and how much thicker strokes are, as a share of
    the digit's height.
    """

    digit: int
    font: str
    size: tuple[int, int]
    centre: tuple[float, float]
    height: float
    ink: tuple[int, ...]
    ground: tuple[int, ...]
    thicker: float = 0.0


# Chosen before any answer was seen, and not changed since.
DRAWINGS = [
    Drawing(0, SANS, (28, 28), (0.5, 0.5), 0.7, BLACK, WHITE),
    Drawing(1, SERIF, (64, 64), (0.5, 0.5), 0.6, WHITE, BLACK),
    Drawing(2, STIX, (640, 480), (0.3, 0.6), 0.5, BLACK, WHITE, 0.05),
    Drawing(3, SANS, (200, 100), (0.7, 0.5), 0.6, BLACK, CLEAR),
    Drawing(4, SERIF, (100, 200), (0.5, 0.3), 0.3, WHITE, CLEAR, 0.05),
    Drawing(5, STIX, (320, 240), (0.6, 0.6), 0.4, NAVY, CREAM, 0.05),
    Drawing(6, SANS, (640, 480), (0.5, 0.5), 0.8, WHITE, BLACK, 0.05),
    Drawing(7, SERIF, (28, 28), (0.4, 0.6), 0.5, WHITE, BLACK),
    Drawing(8, STIX, (128, 128), (0.5, 0.5), 0.9, GREY, SILVER),
    Drawing(9, SANS, (480, 640), (0.7, 0.2), 0.2, BLACK, WHITE),
    Drawing(0, SERIF, (300, 300), (0.3, 0.3), 0.3, WHITE, NAVY, 0.05),
    Drawing(1, STIX, (640, 480), (0.8, 0.5), 0.4, BLACK, CLEAR),
    Drawing(2, SANS, (32, 32), (0.5, 0.5), 0.6, WHITE, CLEAR),
    Drawing(3, SERIF, (640, 480), (0.5, 0.5), 0.6, WHITE, BLACK),
    Drawing(4, STIX, (56, 56), (0.6, 0.4), 0.6, BLACK, WHITE, 0.05),
    Drawing(5, SANS, (240, 320), (0.5, 0.5), 0.6, BLACK, WHITE, 0.08),
    Drawing(6, SERIF, (100, 100), (0.3, 0.7), 0.4, BLACK, SILVER),
    Drawing(7, STIX, (200, 200), (0.5, 0.5), 0.5, BLACK, WHITE, 0.08),
    Drawing(8, SANS, (640, 480), (0.2, 0.3), 0.3, BLACK, CLEAR, 0.05),
    Drawing(9, SERIF, (50, 70), (0.5, 0.5), 0.5, WHITE, GREY),
]


def draw(drawing):
    """Draw one, with the middle of what is drawn at the centre."""
    width, height = drawing.size
    share = drawing.height * height / 100
    font = ImageFont.truetype(FONTS / drawing.font, 200)
    _, top, _, bottom = font.getbbox(str(drawing.digit), anchor="ls")
    # The size in which the digit without its thicker strokes is as high as it shall be.
    font = font.font_variant(size=max(round(200 * 100 * share / (bottom - top)), 8))
    image = Image.new("RGBA", drawing.size, drawing.ground)
    style = {"stroke_width": round(drawing.thicker * 100 * share), "anchor": "ls"}
    left, top, right, bottom = font.getbbox(str(drawing.digit), **style)
    x = drawing.centre[0] * width - (left + right) / 2
    y = drawing.centre[1] * height - (top + bottom) / 2
    if drawing.ground == CLEAR:
        # Text on a transparent ground would mix its edges with the ground's black.
        image = Image.new("RGBA", drawing.size, (*drawing.ink[:3], 0))
    ImageDraw.Draw(image).text((x, y), str(drawing.digit), drawing.ink, font, **style)
    return image if drawing.ground == CLEAR else image.convert("RGB")
