"""Runs whose depth is calibrated at their end."""

import io
import json

import keras
import numpy as np
import pytest
from rich.console import Console

import keras_iterconv as ki
from iterconv.command_errors import UserError
from keras_iterconv import datasets
from keras_iterconv.runs import read_finished_run
from training import session
from training.settings import make_settings

QUICK = {"model": "nais_dense", "dataset": "digits", "batch_size": 64, "step_size": 0.5}


def start(folder, epochs=2, **given):
    screen = io.StringIO()
    settings = make_settings(**QUICK, epochs=epochs, max_unroll=20, **given)
    result = session.start(settings, str(folder), Console(file=screen, width=300))
    return result, screen.getvalue()


@pytest.mark.parametrize("threshold", [0.5, None])
def test_a_run_meets_its_budget(tmp_path, threshold):
    folder = tmp_path / "run"
    result, screen = start(folder, mean_updates=7, threshold=threshold)
    report = ki.DepthReport.from_dict(result["calibration"])
    said = report.describe_calibration("validation images")
    assert f"Calibrated to {said}" in screen
    assert "--mean-updates 7" in result["command"]
    model = keras.models.load_model(folder / "last.keras")
    (block,) = ki.iterated_blocks(model)
    assert (block.threshold,) == report.thresholds
    assert report.before.threshold == threshold
    data = datasets.load("digits")
    for part in ("validation", "test"):
        split = getattr(data, part)
        outputs = ki.with_depth(model)((split.images - data.mean) / data.std)
        depth = outputs["depth"].numpy().sum(axis=1)
        right = outputs["logits"].numpy().argmax(axis=1) == split.labels
        assert result[f"{part}_accuracy"] == pytest.approx(right.mean())
        assert depth.mean() <= 7 + depth.std() / np.sqrt(len(depth))
    assert result["mean_depth"] == pytest.approx(depth.mean())
    assert result["adaptive"]
    assert json.loads((folder / "result.json").read_text()) == result
    assert read_finished_run(folder).result["calibrated"] == said


def test_a_run_on_all_images_meets_a_budget_of_updates_on_training_images(tmp_path):
    folder = tmp_path / "run"
    result, screen = start(folder, mean_updates=7, threshold=0.5, validation_share=0)
    data = datasets.load("digits", validation_share=0)
    count = len(data.train)
    assert f"calibrating the depth on {count:,} training images" in screen
    assert f"mean_updates 7 on {count:,} training images: threshold" in result["calibrated"]
    model = keras.models.load_model(folder / "last.keras")
    depth = ki.with_depth(model)((data.train.images - data.mean) / data.std)["depth"].numpy()
    updates = result["calibration"]["own"]["updates"]
    assert updates == pytest.approx(depth.mean())
    assert updates <= 7


def test_a_calibrated_run_is_trained_further_as_one_that_is_not(tmp_path):
    calibrated, plain = tmp_path / "calibrated", tmp_path / "plain"
    start(calibrated, mean_updates=3, threshold=0.5)
    start(plain, threshold=0.5)
    for folder in (calibrated, plain):
        session.resume(str(folder), Console(file=io.StringIO()), epochs=3)
    models = [keras.models.load_model(folder / "last.keras") for folder in (calibrated, plain)]
    for first, second in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(first, second)
    assert ki.iterated_blocks(models[0])[0].threshold > ki.iterated_blocks(models[1])[0].threshold


def test_a_budget_that_cannot_be_met_loses_nothing(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=r"the run is finished, but not calibrated.*at least 1 for"):
        start(folder, epochs=1, mean_updates=0.5, threshold=0.5)
    run = read_finished_run(folder)
    assert "calibration" not in run.result
    (block,) = ki.iterated_blocks(keras.models.load_model(folder / "last.keras"))
    assert block.threshold == 0.5
