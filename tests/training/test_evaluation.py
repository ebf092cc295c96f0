"""The evaluation of a net on sets of classes, and runs on such a data set."""

import json

import keras
import numpy as np
import pytest

from keras_iterconv import datasets
from keras_iterconv.datasets import ImageData, Split
from keras_iterconv.depth.evaluation import evaluate


def share_of_right_pairs(labels, logits):
    """The share of rows whose two largest are their two classes."""
    pairs = zip(labels, logits, strict=True)
    return np.mean([set(np.argsort(row)[-2:]) == set(np.flatnonzero(hot)) for hot, row in pairs])


def test_evaluation_takes_loss_and_accuracy_of_sets():
    rng = np.random.default_rng(0)
    labels = np.array([np.isin(range(5), rng.permutation(5)[:2]) for _ in range(40)], np.int32)
    logits = (labels + rng.normal(size=labels.shape)).astype(np.float32)
    images = np.zeros((40, 4, 4, 1), np.uint8)
    split = Split(images, labels)
    data = ImageData("made up", split, split, split, np.zeros(1), np.ones(1), tuple("abcde"), 255)

    ones = np.ones((40, 1), np.int32)
    outputs = {"logits": logits, "depth": ones, "status": ones}
    result = evaluate(lambda images: outputs, data, split, 40)
    assert result.accuracy == pytest.approx(share_of_right_pairs(labels, logits))
    assert 0.2 < result.accuracy < 0.8
    p = 1 / (1 + np.exp(-np.float64(logits)))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert result.loss == pytest.approx(expected, rel=1e-5)


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
        expected = share_of_right_pairs(split.labels, logits)
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
    model.compile(keras.optimizers.Adam(0.01), data.task.make_loss())
    model.fit(images, data.train.labels, epochs=40, verbose=0)
    logits = model.predict(images, verbose=0)
    assert share_of_right_pairs(data.train.labels, logits) > 0.9  # By chance, 0.02.
    assert data.task.mean_loss(data.train.labels, logits) < 0.1


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
