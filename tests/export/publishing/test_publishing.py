"""`python -m export.publish`: the files, the card and the index that it writes."""

import dataclasses
import json
import shlex

import keras
import numpy as np
import onnx
import pytest

import keras_iterconv as ki
from export import zoo_entry
from export.classifier import OnnxClassifier
from export.zoo_folder import check_index
from keras_iterconv.runs import training_command
from training import fit, session
from training.settings import default_settings, make_settings


def test_what_is_published(published, finished_run):
    index = json.loads((published / "index.json").read_text())
    check_index(index, published)
    (entry,) = index["models"].values()
    assert list(index["models"]) == ["small"]
    result = json.loads((finished_run / "result.json").read_text())
    assert entry["result"]["test_accuracy"] == result["test_accuracy"]
    assert entry["depth"] == {"threshold": 1.5, "max_unroll": 25}
    assert entry["dataset"] == "digits"
    assert entry["input_shape"] == [8, 8, 1]
    names = {file.removeprefix("small/1/") for file in entry["files"]}
    assert names >= {
        "small.keras",
        "small.onnx",
        "README.md",
        "curves.png",
        "depth.png",
        "saved_model/saved_model.pb",
    }
    there = {p.relative_to(published).as_posix() for p in published.rglob("*") if p.is_file()}
    assert there == {"index.json", *entry["files"]}
    card = (published / "small" / "1" / "README.md").read_text()
    assert f"{result['test_accuracy']:.2%}" in card
    assert entry["command"] in card
    assert "](curves.png)" in card
    assert "](depth.png)" in card
    texts = (published / "index.json").read_text() + card
    assert str(finished_run) not in texts
    converted = onnx.load(published / "small" / "1" / "small.onnx")
    assert entry["operators"]["Loop"] >= 1
    assert {p.key: p.value for p in converted.metadata_props}["threshold"] == "1.5"
    assert ki.load_pretrained("small", published).count_params() == entry["parameters"]


@pytest.mark.usefixtures("undescribed")
@pytest.mark.parametrize("given", ["onnx", "saved_model"])
def test_one_format_alone(publish_command, finished_run, tmp_path, given):
    code, _, error = publish_command(finished_run, "--zoo", tmp_path, "--format", given)
    assert (code, error) == (0, "")
    (entry,) = json.loads((tmp_path / "index.json").read_text())["models"].values()
    names = {file.split("/", 2)[2] for file in entry["files"]}
    assert ("nais_mnist_digits.onnx" in names) == (given == "onnx")
    assert ("saved_model/saved_model.pb" in names) == (given == "saved_model")
    code, screen, _ = publish_command("--check", "--zoo", tmp_path, "--trust")
    assert code == 0, screen
    assert ki.load_pretrained("nais_mnist_digits", tmp_path).count_params() == entry["parameters"]


def test_the_figure_of_depth_takes_pixels_as_the_run_did(finished_run, tmp_path, monkeypatch):
    """Of 64 training images, whose mean is another one than that of all."""
    measured = []
    monkeypatch.setattr(zoo_entry, "measure_depths", lambda *given: measured.append(given[2]))
    monkeypatch.setattr(zoo_entry, "draw_depths", lambda path, depths: None)
    run, model = zoo_entry.read_run(finished_run)
    zoo_entry._draw_depth(run, model, "small", tmp_path / "depth.png", print)
    assert measured[0].mean.tolist() == run.data["mean"]
    assert measured[0].std.tolist() == run.data["std"]


def test_a_capped_residual_net(publish_command, train, tmp_path):
    """Its depth is fixed: no threshold in the file, no figure of depth in the card."""
    zoo = tmp_path / "zoo"
    code, _, error = publish_command(train(model="icr_w8", blocks=1), "--zoo", zoo)
    assert (code, error) == (0, "")
    (entry,) = json.loads((zoo / "index.json").read_text())["models"].values()
    assert entry["depth"] is None
    # Each capped at 0.95, by itself.
    assert entry["certificate"]["blocks"] == 3
    assert 1 < entry["certificate"]["largest_factor"] <= 1.951
    card = (zoo / "icr_w8_digits" / "1" / "README.md").read_text()
    assert "depth.png" not in card
    code, screen, _ = publish_command("--check", "--zoo", zoo)
    assert code == 0, screen
    assert "100.000%" in screen


def test_unit_pixels_and_no_validation(publish_command, train, tmp_path, draw_raw):
    run = train(model="nais_mnist", threshold=0.1, pixels="unit", validation_share=0.0)
    zoo = tmp_path / "zoo"
    code, _, error = publish_command(run, "--zoo", zoo, "--name", "unit")
    assert (code, error) == (0, "")
    (entry,) = json.loads((zoo / "index.json").read_text())["models"].values()
    assert (entry["mean"], entry["std"]) == ([0.0], [16.0])
    assert "validation_accuracy" not in entry["result"]
    assert "--pixels unit" in entry["command"]
    card = (zoo / "unit" / "1" / "README.md").read_text()
    assert "`model.preprocessing` computes image / 16: values from 0 to 1" in card
    raw = np.clip(draw_raw(3), 0, 16)
    model = ki.load_pretrained("unit", zoo)
    expected = model(raw / 16).numpy()
    np.testing.assert_allclose(model.preprocessing(raw), raw / 16, rtol=1e-6)
    logits = OnnxClassifier(zoo / "unit" / "1" / "unit.onnx").classify(raw).logits
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    code, screen, _ = publish_command("--check", "--zoo", zoo)
    assert code == 0, screen


@pytest.mark.usefixtures("undescribed")
def test_a_run_of_mixed_precision_is_published_in_float32(publish_command, train, tmp_path):
    """Else its .keras file gives other numbers than the others: the check fails without it."""
    run = train(model="nais_fast", mixed_precision=True, mirrored_test=True)
    code, _, error = publish_command(run, "--zoo", tmp_path, "--name", "mixed")
    assert (code, error) == (0, "")
    model = ki.load_pretrained("mixed", tmp_path)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    result = json.loads((tmp_path / "index.json").read_text())["models"]["mixed"]["result"]
    data = ki.datasets.load("digits")
    images = model.preprocessing(data.test.images)
    logits = model.predict(images, verbose=0)
    mirrored = logits + model.predict(images[:, :, ::-1], verbose=0)
    for name, found in (("test_accuracy", logits), ("test_accuracy_mirrored", mirrored)):
        assert result[name] == pytest.approx((found.argmax(axis=1) == data.test.labels).mean())
    code, screen, _ = publish_command("--check", "--zoo", tmp_path, "--trust")
    assert code == 0, screen


@pytest.mark.usefixtures("undescribed")
def test_folder_names_are_no_markup(publish_command, finished_run, tmp_path):
    zoo = tmp_path / "a[" / "red]"
    code, screen, error = publish_command(finished_run, "--zoo", zoo, "--format", "onnx")
    assert (code, error) == (0, "")
    assert f"published in {zoo}\n" in screen
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "Models of" in screen
    code, _, error = publish_command(f"{tmp_path}/[/red]", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "[/red]" in error


def test_a_card_names_its_zoo_and_its_line_loads(published):
    card = (published / "small" / "1" / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    images = np.zeros((2, 8, 8, 1))
    found = {"images": images}
    exec(program, found)
    model = found["model"]
    scaled = (images - model.preprocessing.mean) / model.preprocessing.std
    np.testing.assert_allclose(found["logits"], model(scaled.astype(np.float32)), rtol=1e-5)
    assert model.card == card
    entry = json.loads((published / "index.json").read_text())["models"]["small"]
    assert model.class_names == tuple(entry["classes"])
    # The file brings them along, wherever it goes.
    alone = keras.models.load_model(published / "small" / "1" / "small.keras")
    assert alone.preprocessing == model.preprocessing
    assert alone.class_names == model.class_names


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize(
    "given",
    [
        {"model": "nais10"},
        {"model": "nais_adaptive", "dataset": "cifar10"},
        {"model": "nais_mnist", "dataset": "mnist", "threshold": 1e-3, "max_unroll": 7, "seed": 5},
        {"model": "nais10", "learning_rate": 0.1, "schedule": "step", "augment": "none"},
        {"model": "nais10", "epochs": 1, "batch_size": 32, "limit_train": 64},
        {"model": "resnet_w8", "coupling": 0.5, "shared_initialization": False, "blocks": 2},
        {"model": "icr_w16", "shared_initialization": True, "lipschitz_cap": 0.5},
        {"model": "nais1", "mixed_precision": True, "strategy": "mirrored", "gradient": "frozen"},
        {"model": "resnet_w8", "coupling": 0.0, "weight_decay": 1e-4, "step_size": 0.25},
        {"model": "nais_mnist", "pixels": "unit", "validation_share": 0.0, "clip_norm": 0.0},
        {"preset": "nais-cifar10"},
        {"preset": "resnet-w16-digitclutter", "epochs": 3},
    ],
)
def test_the_command_gives_the_same_settings(given, short, monkeypatch):
    settings = make_settings(**given)
    default = default_settings(settings) if short else None
    words = shlex.split(training_command(dataclasses.asdict(settings), (), default))
    assert words[:3] == ["python", "-m", "training.fit"]
    started = []
    monkeypatch.setattr(session, "start", lambda settings, *rest: started.append((settings, rest)))
    monkeypatch.setattr("sys.argv", words[2:])
    with pytest.raises(SystemExit) as stop:
        fit.main()
    assert stop.value.code == 0
    assert dataclasses.asdict(started[0][0]) == dataclasses.asdict(settings)
    # The default is the next free folder.
    assert started[0][1][0] is None
