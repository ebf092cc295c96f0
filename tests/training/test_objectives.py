"""Losses and metrics of both kinds of label, against plain loops."""

import itertools
import json

import keras
import numpy as np
import pytest

from keras_iterconv import datasets
from keras_iterconv.datasets import ImageData, Split
from keras_iterconv.metrics import ExactSetAccuracy, chance_error, is_wrong
from training import objectives
from training.evaluation import evaluate


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
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile("sgd", objectives.make_loss(True), metrics=objectives.make_metrics(True))
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


def test_the_loss_of_sets_is_the_mean_binary_cross_entropy():
    labels, logits = random_sets(50)
    logits = np.nan_to_num(logits, posinf=3).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert objectives.mean_loss(labels, logits) == pytest.approx(expected, rel=1e-5)
    assert float(objectives.make_loss(True)(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_classes_is_the_mean_cross_entropy():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 6, 40).astype(np.int32), rng.normal(size=(40, 6))
    logits = logits.astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    expected = -np.mean(np.log(p[np.arange(40), labels] / p.sum(axis=1)))
    assert objectives.mean_loss(labels, logits) == pytest.approx(expected, rel=1e-5)
    assert float(objectives.make_loss(False)(labels, logits)) == pytest.approx(expected, rel=1e-5)
    assert objectives.make_metrics(False) == ["accuracy"]
    wrong = [np.argmax(row) != label for row, label in zip(logits, labels, strict=True)]
    assert is_wrong(logits, labels).tolist() == wrong
    assert 0 < sum(wrong) < 40
    for bad in (np.nan, np.inf):
        spoilt = np.where(np.arange(6) == labels[:, np.newaxis], bad, logits)
        assert is_wrong(spoilt, labels).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 10])
def test_chance_error_counts_the_sets(n):
    sets = list(itertools.combinations(range(10), n))
    labels = np.zeros((3, 10), int)
    labels[:, :n] = 1
    assert chance_error(labels, 10) == pytest.approx(1 - 1 / len(sets))


def test_chance_error_is_that_of_random_outputs():
    rng = np.random.default_rng(0)
    labels = np.tile([1, 1, 0, 0, 0, 0], (30_000, 1)).astype(np.int32)
    wrong = is_wrong(rng.normal(size=labels.shape).astype(np.float32), labels)
    assert wrong.mean() == pytest.approx(chance_error(labels, 6), abs=0.006)  # 4 standard errors.


def test_evaluation_takes_loss_and_accuracy_of_sets():
    labels, logits = random_sets(40)
    images = np.zeros((40, 4, 4, 1), np.uint8)
    split = Split(images, labels)
    data = ImageData("made up", split, split, split, np.zeros(1), np.ones(1), tuple("abcde"), 255)

    ones = np.ones((40, 1), np.int32)
    outputs = {"logits": logits, "depth": ones, "status": ones}
    result = evaluate(lambda images: outputs, data, split, 40)
    assert result.accuracy == pytest.approx(loop_accuracy(labels, logits))
    assert np.isnan(result.loss)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--model", "nais_mnist", "--max-unroll", 3),
        ("--model", "nais_mnist", "--max-unroll", 3, "--strategy", "mirrored"),
    ],
)
def test_a_run_on_digitclutter(fit_command, tiny_digitclutter, tmp_path, arguments):
    code, screen, _ = fit_command(
        *arguments, "--dataset", "digitclutter2", "--epochs", 1, "--batch-size", 32,
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    data = datasets.load("digitclutter2")
    last = keras.models.load_model(tmp_path / "run" / "last.keras")
    for part in ("train", "test"):
        split = getattr(data, part)
        images = (split.images - data.mean) / data.std
        logits = last.predict(images, verbose=0)
        expected = loop_accuracy(split.labels, logits)
        assert result[f"{part}_accuracy"] == pytest.approx(expected)
        # What the file was compiled with, which also made the history's running accuracy.
        measured = last.evaluate(images, split.labels, verbose=0, return_dict=True)
        assert measured["accuracy"] == pytest.approx(expected)
    assert f"{result['test_accuracy']:.2%}" in screen


def test_a_net_learns_sets(tiny_digitclutter):
    data = datasets.load("digitclutter2", limit_train=32)
    images = (data.train.images - data.mean) / data.std
    model = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10))
    model.compile(keras.optimizers.Adam(0.01), objectives.make_loss(True))
    model.fit(images, data.train.labels, epochs=40, verbose=0)
    logits = model.predict(images, verbose=0)
    assert loop_accuracy(data.train.labels, logits) > 0.9  # By chance, 0.02.
    assert objectives.mean_loss(data.train.labels, logits) < 0.1


def test_a_folder_that_cannot_be_written_is_one_line(fit_command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    code, _, error = fit_command(
        "--model", "nais_mnist", "--dataset", "digitclutter2", "--output", tmp_path / "run"
    )
    assert code == 2
    assert error.count("\n") == 1
    assert "could not be written to" in error
    assert not (tmp_path / "run").exists()
