"""Publishing with a budget: the threshold of all files, the card and the index."""

import json
import shutil

import pytest

import keras_iterconv as ki
from export.classifier import OnnxClassifier
from keras_iterconv import datasets


@pytest.mark.usefixtures("undescribed")
def test_a_budget_sets_the_threshold_of_all_files(publish_command, finished_run, tmp_path):
    before = json.loads((finished_run / "result.json").read_text())
    last = (finished_run / "last.keras").read_bytes()
    code, screen, error = publish_command(
        finished_run, "--zoo", tmp_path, "--name", "small", "--mean-updates", 4
    )
    assert (code, error) == (0, "")
    entry = json.loads((tmp_path / "index.json").read_text())["models"]["small"]
    threshold = entry["depth"]["threshold"]
    model = ki.load_pretrained("small", tmp_path)
    assert ki.iterated_blocks(model)[0].threshold == threshold > 1.5
    assert OnnxClassifier(tmp_path / "small" / "1" / "small.onnx").threshold == threshold
    assert entry["command"].endswith("; python -m export.publish RUN --mean-updates 4")
    said = entry["result"]["calibrated"]
    assert said in screen
    assert said.startswith("mean_updates 4 on ")
    card = (tmp_path / "small" / "1" / "README.md").read_text()
    assert f"stopping threshold {threshold:g} |\n| calibrated to | {said} |" in card
    # The accuracy and depth are those of the new threshold.
    data = datasets.load("digits")
    outputs = ki.with_depth(model)(model.preprocessing(data.test.images))
    right = outputs["logits"].numpy().argmax(axis=1) == data.test.labels
    assert entry["result"]["test_accuracy"] == pytest.approx(right.mean())
    assert entry["result"]["mean_depth"] == pytest.approx(outputs["depth"].numpy().mean())
    assert entry["result"]["mean_depth"] < before["mean_depth"]
    # The folder of the run has not changed.
    assert json.loads((finished_run / "result.json").read_text()) == before
    assert (finished_run / "last.keras").read_bytes() == last
    code, screen, error = publish_command("--check", "--zoo", tmp_path)
    assert (code, error) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean-updates", 0.5], "--mean-updates must be at least 1 for this model and data"),
        (["--accuracy-loss", 2], "--accuracy-loss must lie in [0, 1)"),
        (["--accuracy-loss", 0.1, "--mean-updates", 3], "must be given, and not both"),
    ],
)
def test_a_budget_that_cannot_be_met_publishes_nothing(
    publish_command, finished_run, tmp_path, options, message
):
    code, _, error = publish_command(finished_run, "--zoo", tmp_path / "zoo", *options)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not (tmp_path / "zoo").exists()


def test_a_budget_is_not_for_a_check(publish_command, tmp_path):
    code, _, error = publish_command("--check", "--zoo", tmp_path, "--mean-updates", 3)
    assert (code, error.count("\n")) == (2, 1)
    assert "--mean-updates must be used without --check" in error


@pytest.mark.parametrize(
    ("fact", "value"),
    [("classes", list("9876543210")), ("mean", [4.0]), ("sha256", "0" * 64)],
)
def test_only_the_data_of_the_training_calibrate(
    publish_command, finished_run, tmp_path, fact, value
):
    """Other images of the same number are not those of the run's validation part."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"][fact] = value
    (run / "config.json").write_text(json.dumps(config))
    code, _, error = publish_command(run, "--zoo", tmp_path / "zoo", "--mean-updates", 4)
    assert (code, error.count("\n")) == (2, 1)
    assert "the data set 'digits' must be that of the training" in error
    assert f"it differs in {fact}; restore its files (TFDS_DATA_DIR)" in error
    assert not (tmp_path / "zoo").exists()


@pytest.mark.usefixtures("undescribed")
def test_a_run_on_all_images_takes_a_budget_of_updates_alone(publish_command, train, tmp_path):
    run = train(model="nais_mnist", threshold=0.1, validation_share=0.0)
    zoo = tmp_path / "zoo"
    code, _, error = publish_command(run, "--zoo", zoo, "--accuracy-loss", 0.1)
    assert (code, error.count("\n")) == (2, 1)
    assert "--accuracy-loss needs validation images, and the run has none" in error
    assert not zoo.exists()
    code, _, error = publish_command(run, "--zoo", zoo, "--name", "all", "--mean-updates", 20)
    assert (code, error) == (0, "")
    entry = json.loads((zoo / "index.json").read_text())["models"]["all"]
    count = json.loads((run / "config.json").read_text())["data"]["images"]["train"]
    assert entry["result"]["calibrated"].startswith(f"mean_updates 20 on {count} training images")
