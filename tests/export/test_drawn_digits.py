"""Drawn digits of every kind: which of them the zoo's adaptive MNIST net reads."""

import json
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from export import predict
from export.classifier import OnnxClassifier

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


@pytest.fixture
def read_answers(capsys, tmp_path):
    """Return a function that runs the command on pictures, and returns what its JSON says."""

    def read(name, images, *options):
        net = ZOO / name / "1" / f"{name}.onnx"
        files = [tmp_path / f"{k:02}.png" for k in range(len(images))]
        for file, image in zip(files, images, strict=True):
            image.save(file)
        assert predict.main(list(map(str, [net, *files, "--json", *options]))) == 0
        return json.loads(capsys.readouterr().out)

    return read


def test_drawn_digits_are_read(read_answers):
    answers = read_answers("nais_mnist_adaptive", [draw(drawing) for drawing in DRAWINGS])
    assert {drawing.digit for drawing in DRAWINGS} == set(range(10))
    wrong = [
        (number, drawing.digit, answer["top"][0])
        for number, (drawing, answer) in enumerate(zip(DRAWINGS, answers, strict=True))
        if int(answer["top"][0]["class"]) != drawing.digit
    ]
    assert len(DRAWINGS) - len(wrong) >= 17, wrong
    for drawing, answer in zip(DRAWINGS, answers, strict=True):
        assert answer["contrast"]
        # What is transparent becomes white under black ink, and black under white.
        ground = (255 - sum(drawing.ink[:3]) // 3,) if drawing.ground == CLEAR else drawing.ground
        assert answer["inverted"] == (drawing.ink[0] < ground[0])


@pytest.mark.parametrize("inverted", [False, True])
def test_the_digits_of_the_data_set_are_read_as_raw_arrays_are(read_answers, inverted):
    digits = load_digits()
    bunch = slice(0, 1797, 30)
    images, labels = digits.images[bunch], digits.target[bunch]
    pixels = np.round((16 - images if inverted else images) * (255 / 16)).astype(np.uint8)
    answers = read_answers("nais_adaptive_digits", list(map(Image.fromarray, pixels)))
    assert all(answer["inverted"] == inverted for answer in answers)
    found = np.array([int(answer["top"][0]["class"]) for answer in answers])
    net = OnnxClassifier(ZOO / "nais_adaptive_digits" / "1" / "nais_adaptive_digits.onnx")
    raw = net.classify(images[..., np.newaxis]).logits.argmax(axis=1)
    assert np.mean(found == labels) >= np.mean(raw == labels) - 0.005


RNG = np.random.default_rng(7)
BLANK = {
    "black": Image.new("L", (28, 28), 0),
    "white": Image.new("RGB", (640, 480), "white"),
    "grey": Image.new("L", (100, 50), 128),
    "one pixel": Image.new("L", (1, 1), 255),
    "clear": Image.new("RGBA", (64, 64), CLEAR),
    "faint ink": draw(DRAWINGS[13]).convert("L").point(lambda grey: 128 + grey // 20),
    "noise": Image.fromarray(RNG.normal(128, 20, (240, 320)).clip(0, 255).astype(np.uint8)),
    "a speck": Image.fromarray(np.pad([[255]], 50).astype(np.uint8)),
    "shading": Image.fromarray(np.tile(np.linspace(90, 230, 320), (240, 1)).astype(np.uint8)),
}


@pytest.mark.parametrize("name", ["nais_mnist_adaptive", "nais_adaptive_digits"])
def test_a_picture_without_contrast_has_no_answer(read_answers, name):
    for kind, answer in zip(BLANK, read_answers(name, list(BLANK.values())), strict=True):
        assert (answer["top"], answer["contrast"]) == ([], False), kind


def test_invert_is_obeyed(read_answers):
    images = [draw(drawing) for drawing in DRAWINGS[:2]]
    for option in ("yes", "no"):
        answers = read_answers("nais_mnist_adaptive", images, "--invert", option)
        assert [answer["inverted"] for answer in answers] == [option == "yes"] * 2
    # The first is black on white: as light ink there is its ground, and the digit a hole.
    right = read_answers("nais_mnist_adaptive", images[:1], "--invert", "yes")
    assert (right[0]["top"][0]["class"], right[0]["contrast"]) == ("0", True)
    assert not answers[0]["contrast"]
