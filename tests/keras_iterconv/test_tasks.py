"""Losses, wrong predictions and chance errors of each task, against plain loops and counting."""

import itertools

import numpy as np
import pytest

from keras_iterconv.tasks import TASKS, infer_task, is_wrong


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
    labels = np.zeros(shape, int)
    assert infer_task((6, 10), labels).chance_error(labels, 10) == pytest.approx(0.9)


@pytest.mark.parametrize("counts", [(1,), (2,), (2, 3, 4, 5), (0, 4)])
def test_chance_of_multi_hot_labels_counts_all_sets(counts):
    rng = np.random.default_rng(0)
    labels = np.concatenate([one_hot_sets(rng, 2, 6, (n,)) for n in counts])
    errors = []
    for label in labels:
        targets = {c for c in range(6) if label[c]}
        guesses = [set(g) for g in itertools.combinations(range(6), len(targets))]
        errors.append(1 - sum(g == targets for g in guesses) / len(guesses))
    assert TASKS["label_sets"].chance_error(labels, 6) == pytest.approx(np.mean(errors))


def test_chance_is_the_error_of_random_logits():
    rng = np.random.default_rng(0)
    labels = one_hot_sets(rng, 40_000, 4)
    logits = rng.normal(size=labels.shape)
    # Five standard errors.
    assert is_wrong(logits, labels).mean() == pytest.approx(
        TASKS["label_sets"].chance_error(labels, 4), abs=5 * 0.5 / 200
    )


def test_the_loss_of_sets_is_the_mean_binary_cross_entropy():
    rng, task = np.random.default_rng(0), TASKS["label_sets"]
    labels = one_hot_sets(rng, 50, 5)
    logits = rng.normal(size=labels.shape).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert task.mean_loss(labels, logits) == pytest.approx(expected, rel=1e-5)
    assert float(task.make_loss()(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_classes_is_the_mean_cross_entropy():
    rng, task = np.random.default_rng(0), TASKS["classes"]
    labels, logits = rng.integers(0, 6, 40).astype(np.int32), rng.normal(size=(40, 6))
    logits = logits.astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    expected = -np.mean(np.log(p[np.arange(40), labels] / p.sum(axis=1)))
    assert task.mean_loss(labels, logits) == pytest.approx(expected, rel=1e-5)
    assert float(task.make_loss()(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_positions_is_the_mean_over_all_positions():
    rng, task = np.random.default_rng(0), TASKS["labels_per_position"]
    labels, logits = rng.integers(0, 3, (8, 5)), rng.normal(size=(8, 5, 3)).astype(np.float32)
    p = np.exp(np.float64(logits))
    p = p / p.sum(axis=-1, keepdims=True)
    losses = [-np.log(p[n, k, labels[n, k]]) for n in range(8) for k in range(5)]
    assert task.mean_loss(labels, logits) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(task.make_loss()(labels, logits)) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("shape", [(9, 1), (9, 4)])
def test_loss_and_metric_of_numbers(shape):
    rng, task = np.random.default_rng(0), TASKS["regression"]
    labels, outputs = rng.normal(size=(2, *shape)).astype(np.float32)
    expected = np.mean((labels - outputs) ** 2)
    assert task.mean_loss(labels, outputs) == pytest.approx(expected, rel=1e-5)
    assert float(task.make_loss()(labels, outputs)) == pytest.approx(expected, rel=1e-5)
    (metric,) = task.make_metrics()
    metric.update_state(labels, outputs)
    assert float(metric.result()) == pytest.approx(np.abs(labels - outputs).mean(), rel=1e-5)


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_chance_of_positions_counts_all_guesses(shape):
    labels = np.random.default_rng(0).integers(0, 3, (5, *shape))
    guesses = list(itertools.product(range(3), repeat=4))
    right = sum(guess == tuple(labels[0].ravel()) for guess in guesses)
    task = infer_task((5, *shape, 3), labels)
    assert task.chance_error(labels, 3) == pytest.approx(1 - right / len(guesses))


NUMBERS = np.linspace(-1, 1, 6)


@pytest.mark.parametrize(
    ("name", "output_shape", "labels"),
    [
        ("classes", (6, 3), np.arange(6) % 3),
        ("classes", (6, 3), np.float32(np.arange(6) % 3)[:, np.newaxis]),
        # As many images as classes, and as many positions as classes.
        ("classes", (6, 6), np.arange(6)),
        ("label_sets", (6, 6), np.eye(6)),
        ("label_sets", (6, 3), np.ones((6, 3), bool)),
        ("labels_per_position", (2, 3, 3), np.arange(6).reshape(2, 3) % 3),
        ("labels_per_position", (2, 3, 4), np.zeros((2, 3, 1), int)),
        ("labels_per_position", (1, 2, 3, 5), np.zeros((1, 2, 3), int)),
        ("regression", (6, 1), NUMBERS),
        ("regression", (6, 1), NUMBERS[:, np.newaxis]),
        ("regression", (2, 3), NUMBERS.reshape(2, 3)),
        ("regression", (1, 2, 3), NUMBERS.reshape(1, 2, 3)),
    ],
)
def test_the_task_is_inferred(name, output_shape, labels):
    task = infer_task(output_shape, labels)
    assert task.name == name
    assert TASKS[name] is task


@pytest.mark.parametrize("shape", [(6, 1), (3, 2)])
def test_a_regression_has_no_accuracy(shape):
    labels = NUMBERS.reshape(shape)
    message = r"`labels` must be class numbers \[N\].*regression.*`model.evaluate`.*Received"
    with pytest.raises(ValueError, match=message):
        is_wrong(np.zeros(shape), labels)
    with pytest.raises(ValueError, match=message):
        TASKS["regression"].chance_error(labels, 2)


@pytest.mark.parametrize("shape", [(7, 2), (7, 4, 3), (7,), (6, 4), (7, 3, 1, 1)])
def test_labels_that_do_not_fit_positions(shape):
    with pytest.raises(
        ValueError, match=r"`labels` must be .* \[N, positions\].*Received: outputs"
    ):
        is_wrong(np.zeros((7, 4, 3)), np.zeros(shape))
