import numpy as np
import pytest

from keras_iterconv.datasets import Split
from keras_iterconv.datasets.pixel_statistics import PixelSums, channel_statistics
from keras_iterconv.tasks import TASKS


def test_statistics_equal_numpys_in_double_precision():
    images = np.random.default_rng(0).integers(0, 256, (50, 7, 5, 3), np.uint8)
    images[..., 1] //= 9
    mean, std = channel_statistics(images)
    for channel in range(3):
        values = images[..., channel].astype(np.float64).ravel()
        assert mean[channel] == pytest.approx(values.mean(), rel=1e-6)
        assert std[channel] == pytest.approx(values.std(), rel=1e-6)
    assert mean.dtype == std.dtype == np.float32


def test_statistics_of_the_brightest_pictures_do_not_overflow():
    images = np.full((2000, 32, 32, 1), 255, np.uint8)
    images[:1000] = 253
    mean, std = channel_statistics(images)
    assert mean[0] == 254
    assert std[0] == 1


def test_sums_of_images_give_the_statistics_of_any_part():
    images = np.random.default_rng(1).integers(0, 256, (20, 6, 4, 3), np.uint8)
    sums = PixelSums.zeros(20, (6, 4, 3))
    for index, image in enumerate(images):
        sums.put(index, image)
    chosen = np.array([3, 17, 5])
    mean, std = sums.statistics(chosen)
    np.testing.assert_allclose(mean, images[chosen].astype(float).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images[chosen].astype(float).std(axis=(0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_channel_of_one_value_has_the_deviation_one(value):
    images = np.full((3000, 40, 40, 2), value, np.uint8)
    images[-1, 0, 0, 1] ^= 1
    mean, std = channel_statistics(images)
    assert (mean[0], std[0]) == (value, 1)
    # The other channel differs in one of 4.8 million pixels.
    assert std[1] == pytest.approx(4.8e6**-0.5, rel=1e-2)


def test_split_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"`images`.*Received: images.shape=\(3, 8, 8\)"):
        Split(np.zeros((3, 8, 8), np.uint8), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=r"`labels`.*\[3\].*Received: labels.shape=\(2,\)"):
        Split(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(2, np.int32))


def test_take_keeps_the_given_order():
    split = Split(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.arange(4, dtype=np.int32))
    taken = split.take(np.array([3, 1]))
    assert taken.labels.tolist() == taken.images.ravel().tolist() == [3, 1]
    assert len(taken) == 2


def test_a_label_can_be_a_set_of_classes():
    split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.eye(3, 5, dtype=np.int32))
    assert split.task is TASKS["label_sets"]
    assert len(split) == 3
    assert split.take(np.array([2, 0])).labels.tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert Split(split.images, np.zeros(3, np.int32)).task is TASKS["classes"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 5), np.int32), r"\[3\].*Received: labels.shape=\(2, 5\)"),
        (np.zeros((3, 5, 1), np.int32), r"\[3\].*Received: labels.shape=\(3, 5, 1\)"),
        (np.full((3, 5), 2, np.int32), "must be 0 or 1.*Received: labels from 2 to 2"),
    ],
)
def test_split_refuses_sets_that_are_none(labels, message):
    with pytest.raises(ValueError, match=f"`labels`.*{message}"):
        Split(np.zeros((3, 8, 8, 1), np.uint8), labels)
