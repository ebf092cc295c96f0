"""Accuracies of several classes, against plain loops."""

import keras
import numpy as np
import pytest

from keras_iterconv.metrics import AllPositionsAccuracy, ExactSetAccuracy
from keras_iterconv.tasks import TASKS, is_wrong


def loop_accuracy(labels, logits):
    """The share of rows whose n largest are their n classes, one after the other."""
    right = 0
    for label, row in zip(labels, logits, strict=True):
        if not all(np.isfinite(row)):
            continue
        wanted = {c for c, one in enumerate(label) if one}
        order = sorted(range(len(row)), key=lambda c: -row[c])
        n = len(wanted)
        tied = 0 < n < len(row) and row[order[n - 1]] == row[order[n]]
        right += set(order[:n]) == wanted and not tied
    return right / len(labels)


def random_sets(count, classes=5, seed=0):
    """Sets of one to four classes, and logits of few values, so that many are right or tied."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, classes), np.int32)
    for row in labels:
        row[rng.permutation(classes)[: rng.integers(1, classes)]] = 1
    logits = (labels + rng.integers(-1, 2, labels.shape) / 2).astype(np.float32)
    logits[:7, 2] = np.nan
    logits[7:11, 0] = np.inf
    return labels, logits


def test_the_metric_is_the_share_of_exact_sets():
    labels, logits = random_sets(600)
    expected = loop_accuracy(labels, logits)
    assert 0.1 < expected < 0.9
    metric = ExactSetAccuracy()
    for start in range(0, 600, 250):  # The last batch is smaller.
        metric.update_state(labels[start : start + 250], logits[start : start + 250])
    assert float(metric.result()) == pytest.approx(expected)
    assert 1 - is_wrong(logits, labels).mean() == pytest.approx(expected)
    assert metric.name == "accuracy"


@pytest.mark.parametrize(
    ("label", "logits", "right"),
    [
        ([1, 1, 0, 0], [2.0, 1.0, 0.0, -1.0], True),
        ([1, 1, 0, 0], [-8.0, -7.0, -9.0, -10.0], True),
        ([1, 1, 0, 0], [2.0, 1.0, 1.0, -1.0], False),
        ([1, 1, 0, 0], [2.0, 2.0, 1.0, 1.0], True),
        ([1, 1, 0, 0], [0.0, 0.0, 0.0, 0.0], False),
        ([1, 0, 0, 0], [2.0, 1.0, 0.0, -1.0], True),
        ([1, 0, 1, 0], [2.0, 1.0, 0.0, -1.0], False),
        ([1, 1, 0, 0], [np.nan, 1.0, 0.0, -1.0], False),
        ([1, 1, 0, 0], [2.0, 1.0, 0.0, np.nan], False),
        ([1, 1, 0, 0], [np.inf, 1.0, 0.0, -1.0], False),
        ([1, 1, 0, 0], [np.nan] * 4, False),
    ],
)
def test_ties_and_what_is_not_finite_are_never_right(label, logits, right):
    labels, outputs = np.array([label], np.int32), np.array([logits], np.float32)
    assert is_wrong(outputs, labels).tolist() == [not right]
    metric = ExactSetAccuracy()
    metric.update_state(labels, outputs)
    assert float(metric.result()) == right


def test_the_metric_survives_a_file(tmp_path):
    sets = TASKS["label_sets"]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile("sgd", sets.make_loss(), metrics=sets.make_metrics())
    inputs = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    labels = random_sets(300, classes=4)[0]
    logs = model.fit(inputs, labels, verbose=0).history
    assert set(logs) == {"loss", "accuracy"}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = loop_accuracy(labels, again.predict(inputs, verbose=0))
    assert 0.1 < expected < 0.4
    for net in (model, again):
        measured = net.evaluate(inputs, labels, verbose=0, return_dict=True)
        assert measured["accuracy"] == pytest.approx(expected)
    config = keras.saving.serialize_keras_object(ExactSetAccuracy(name="sets"))
    assert keras.saving.deserialize_keras_object(config).name == "sets"


def positions_with_errors(shape=(7,), classes=3, samples=200):
    """Labels, and outputs of one error in 20 positions; some are not finite."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, (samples, *shape))
    predicted = np.where(rng.uniform(size=labels.shape) < 0.05, (labels + 1) % classes, labels)
    outputs = rng.uniform(size=(*labels.shape, classes)) + 2 * np.eye(classes)[predicted]
    outputs[0].flat[2], outputs[1].flat[-1] = np.nan, -np.inf
    return labels, outputs.astype(np.float32)


@pytest.mark.parametrize("shape", [(7,), (3, 2), (1,)])
@pytest.mark.parametrize("last_axis", [(), (1,)])
def test_a_sample_is_right_where_all_its_positions_are(shape, last_axis):
    labels, outputs = positions_with_errors(shape)
    right = []
    for label, rows in zip(labels, outputs, strict=True):
        pairs = zip(label.ravel(), rows.reshape(-1, 3), strict=True)
        right.append(all(max(row) == row[k] and all(np.isfinite(row)) for k, row in pairs))
    assert 0.3 < np.mean(right) < 0.97
    given = labels.reshape(*labels.shape, *last_axis)
    assert is_wrong(outputs, given).tolist() == [not one for one in right]
    metric = AllPositionsAccuracy()
    for start in range(0, 200, 80):  # The last batch is smaller.
        metric.update_state(given[start : start + 80], outputs[start : start + 80])
    assert float(metric.result()) == pytest.approx(np.mean(right))


def test_a_net_of_positions_keeps_its_metric_in_a_file(tmp_path):
    keras.utils.set_random_seed(0)
    task = TASKS["labels_per_position"]
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.Dense(3)])
    model.compile("sgd", task.make_loss(), metrics=task.make_metrics())
    inputs = np.random.default_rng(0).normal(size=(300, 5, 2)).astype(np.float32)
    labels = model.predict(inputs, verbose=0).argmax(axis=-1)
    labels[::3, 2] += 1
    logs = model.fit(inputs, labels % 3, verbose=0).history
    assert set(logs) == {"loss", "accuracy"}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    right = again.predict(inputs, verbose=0).argmax(axis=-1) == labels % 3
    assert 0.3 < right.all(axis=1).mean() < right.mean() < 0.97
    for net in (model, again):
        measured = net.evaluate(inputs, labels % 3, verbose=0, return_dict=True)
        assert measured["accuracy"] == pytest.approx(right.all(axis=1).mean())
    config = keras.saving.serialize_keras_object(AllPositionsAccuracy(name="positions"))
    assert keras.saving.deserialize_keras_object(config).name == "positions"
