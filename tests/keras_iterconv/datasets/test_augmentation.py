import math

import numpy as np
import pytest
from scipy import ndimage

from keras_iterconv._support.extras import MissingExtraError
from keras_iterconv.datasets import AUGMENTATIONS, get_augmentation
from keras_iterconv.datasets.augmentation import DRAWS

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3)]
SHIFT = {8: 1, 28: 3, 32: 4}


@pytest.fixture
def addons():
    try:
        return get_augmentation("addons")
    except MissingExtraError as error:
        pytest.skip(str(error))


def sample(shape, count=12):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(count, *shape)).astype(np.float32)
    draws = generator.uniform(size=(count, DRAWS)).astype(np.float32)
    # Both ends of every shift, mirrored and not.
    draws[0], draws[1] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    draws[2] = 0.5
    return images, draws


def test_names_and_a_wrong_one():
    assert AUGMENTATIONS == ("none", "standard", "alternating", "addons")
    with pytest.raises(ValueError, match=r"`augment`.*Did you mean 'standard'.*augment='standart'"):
        get_augmentation("standart")


@pytest.mark.parametrize("shape", SHAPES)
def test_none_changes_nothing(shape):
    images, draws = sample(shape)
    assert np.array_equal(get_augmentation("none")(images, draws), images)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "part", "border"), [("standard", 8, "constant"), ("alternating", 16, "reflect")]
)
def test_shifts_and_mirror_images_equal_a_plain_loop(name, part, border, shape):
    images, draws = sample(shape)
    side, channels = shape[1:]
    shift = side // part
    expected = []
    for image, draw in zip(images, draws.astype(np.float64), strict=True):
        padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), border)
        top, left = math.floor(draw[0] * (2 * shift + 1)), math.floor(draw[1] * (2 * shift + 1))
        crop = padded[top : top + side, left : left + side]
        expected.append(crop[:, ::-1] if channels == 3 and draw[2] < 0.5 else crop)
    assert np.array_equal(get_augmentation(name)(images, draws), np.stack(expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_standard_uses_every_offset_about_equally_often(shape):
    side = shape[1]
    draws = np.random.default_rng(1).uniform(size=(2700, DRAWS)).astype(np.float32)
    point = np.zeros((2700, *shape), np.float32)
    point[:, side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 1
    moved = get_augmentation("standard")(point, draws).numpy()[..., 0]
    for axis in (1, 2):
        first = moved.max(axis=axis).argmax(axis=1) - (side // 2 - 1)
        offsets, counts = np.unique(first, return_counts=True)
        assert offsets.tolist() == list(range(-SHIFT[side], SHIFT[side] + 1))
        np.testing.assert_allclose(counts, 2700 / len(offsets), rtol=0.25)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_does_not_depend_on_its_batch(name, shape, request):
    augment = request.getfixturevalue("addons") if name == "addons" else get_augmentation(name)
    images, draws = sample(shape, count=31)
    draws[:, 3] = (np.arange(31) + 0.5) / 31  # Every angle.
    together = np.asarray(augment(images, draws))
    assert together.dtype == np.float32
    for i in range(len(images)):
        assert np.array_equal(augment(images[i : i + 1], draws[i : i + 1])[0], together[i])


@pytest.mark.parametrize("shape", SHAPES)
def test_addons_without_rotation_equal_a_plain_loop(shape, addons):
    images, draws = sample(shape)
    draws[:, 3] = 0.5  # An angle of zero.
    side, channels = shape[1:]
    shift = SHIFT[side]
    expected = np.zeros_like(images)
    for image, draw, result in zip(images, draws.astype(np.float64), expected, strict=True):
        right = math.floor(draw[0] * (2 * shift + 1)) - shift
        down = math.floor(draw[1] * (2 * shift + 1)) - shift
        for row in range(side):
            for column in range(side):
                source = side - 1 - column if channels == 3 and draw[2] < 0.5 else column
                if 0 <= row - down < side and 0 <= source - right < side:
                    result[row, column] = image[row - down, source - right]
        top, left = math.floor(draw[4] * side), math.floor(draw[5] * side)
        result[max(0, top - shift) : top + shift, max(0, left - shift) : left + shift] = 0
    np.testing.assert_allclose(addons(images, draws), expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_addons_rotate_by_at_most_fifteen_degrees(shape, addons):
    images, draws = sample(shape, count=31)
    draws[:] = 0.75  # No mirror image.
    draws[:, :2] = 0.5  # No shift.
    draws[:, 3] = (np.arange(31) + 0.5) / 31
    draws[:, 4:] = 0  # Blanks the corner.
    result = addons(images, draws).numpy()
    shift = SHIFT[shape[0]]
    assert not result[:, :shift, :shift].any()
    for image, angle, rotated in zip(images, range(-15, 16), result, strict=True):
        expected = ndimage.rotate(
            image, angle, axes=(0, 1), reshape=False, order=1, mode="grid-constant"
        )
        expected[:shift, :shift] = 0
        np.testing.assert_allclose(rotated, expected, atol=2e-4)
