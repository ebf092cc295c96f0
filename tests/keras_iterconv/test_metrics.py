"""Wrong answers and chance errors against plain loops and counting."""

import itertools

import numpy as np
import pytest

from keras_iterconv.metrics import chance_error, is_wrong


def one_hot_sets(rng, samples, classes, sizes=(2, 3)):
    labels = np.zeros((samples, classes), np.int32)
    for row in labels:
        row[rng.permutation(classes)[: rng.choice(sizes)]] = 1
    return labels


@pytest.mark.parametrize("column", [False, True])
def test_class_numbers(column):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    expected = [
        any(row[c] > row[label] for c in range(4))
        for row, label in zip(logits, labels, strict=True)
    ]
    got = is_wrong(logits, labels[:, None] if column else labels)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == bool
    assert got.shape == (60,)
    assert 0 < got.sum() < 60


@pytest.mark.parametrize("dtype", [np.int32, np.float32, bool])
def test_multi_hot_labels(dtype):
    rng = np.random.default_rng(0)
    labels = one_hot_sets(rng, 300, 5, (1, 2, 3, 4, 5))
    logits = labels + rng.normal(size=labels.shape)
    expected = []
    for label, row in zip(labels, logits, strict=True):
        targets = {c for c in range(5) if label[c]}
        largest = {int(c) for c in np.argsort(-row)[: len(targets)]}
        expected.append(largest != targets)
    got = is_wrong(logits, labels.astype(dtype))
    np.testing.assert_array_equal(got, expected)
    assert 0 < got.sum() < 300


def test_a_tie_between_a_target_and_another_class_is_wrong():
    labels = np.array([[1, 1, 0, 0]] * 3)
    logits = [[2, 1, 1, 0], [1, 1, 0, 0], [1.0, 1, 1, 1]]
    np.testing.assert_array_equal(is_wrong(logits, labels), [True, False, True])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_wrong(bad):
    logits = np.array([[3.0, 1, 0], [3, 1, 0]])
    logits[1, 2] = bad
    np.testing.assert_array_equal(is_wrong(logits, [0, 0]), [False, True])
    multi_hot = [[1, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(is_wrong(logits, multi_hot), [False, True])


@pytest.mark.parametrize("shape", [(5,), (7, 2), (5, 4), (7, 4, 1), (), (1, 7)])
def test_labels_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"`labels` must be class numbers \[N\] or multi-hot"):
        is_wrong(np.zeros((7, 4)), np.zeros(shape))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_chance_of_class_numbers(shape):
    assert chance_error(np.zeros(shape, int), 10) == pytest.approx(0.9)


@pytest.mark.parametrize("counts", [(1,), (2,), (2, 3, 4, 5), (0, 4)])
def test_chance_of_multi_hot_labels_counts_all_sets(counts):
    rng = np.random.default_rng(0)
    labels = np.concatenate([one_hot_sets(rng, 2, 6, (n,)) for n in counts])
    errors = []
    for label in labels:
        targets = {c for c in range(6) if label[c]}
        guesses = [set(g) for g in itertools.combinations(range(6), len(targets))]
        errors.append(1 - sum(g == targets for g in guesses) / len(guesses))
    assert chance_error(labels, 6) == pytest.approx(np.mean(errors))


def test_chance_is_the_error_of_random_logits():
    rng = np.random.default_rng(0)
    labels = one_hot_sets(rng, 40_000, 4)
    logits = rng.normal(size=labels.shape)
    # Five standard errors.
    assert is_wrong(logits, labels).mean() == pytest.approx(
        chance_error(labels, 4), abs=5 * 0.5 / 200
    )
