import functools
import operator

import numpy as np
import pytest

from keras_iterconv import datasets
from keras_iterconv.datasets.prefix_sums import draw_prefix_sums
from keras_iterconv.tasks import TASKS


def test_a_label_is_the_parity_of_the_bits_so_far():
    images, labels = draw_prefix_sums(5, 13, np.random.default_rng(1))
    assert images.shape == (5, 13, 1, 1)
    assert set(np.unique(images)) == {0, 1}
    for bits, label in zip(images[..., 0, 0].tolist(), labels, strict=True):
        wanted = [functools.reduce(operator.xor, bits[: n + 1]) for n in range(13)]
        np.testing.assert_array_equal(label, wanted)


def test_the_data_set_is_always_the_same_and_its_parts_differ():
    data, again = (datasets.load("prefix_sums") for _ in range(2))
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [10_000, 1_000, 2_000]
    assert data.task is TASKS["labels_per_position"]
    assert (data.input_shape, data.scale, data.classes) == ((24, 1, 1), 1, ("even", "odd"))
    np.testing.assert_array_equal(data.test.images, again.test.images)
    seen = {part.images[0].tobytes() for part in parts}
    assert len(seen) == 3


def test_a_limit_keeps_the_first_sequences():
    whole, data = datasets.load("prefix_sums"), datasets.load("prefix_sums", limit_train=50)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50, 5, 2_000]
    np.testing.assert_array_equal(data.train.images, whole.train.images[:50])
    np.testing.assert_array_equal(data.train.labels, whole.train.labels[:50])
    with pytest.raises(ValueError, match="`limit_train` must be at most 10000"):
        datasets.load("prefix_sums", limit_train=10_001)
