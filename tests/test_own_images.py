"""Own pictures from a folder to a prediction, by the commands, and sets of TFDS by name."""

import io
import json
import shlex
import shutil

import keras
import numpy as np
import onnx
import pytest

import keras_iterconv as ki
from export import predict, publish
from keras_iterconv.datasets import assembly
from tests.support.picture_folders import DARK, LIGHT, write_pictures
from tests.support.tfds_sets import change_records, draw_flower, write_set
from training import fit, session


def command(main, *arguments):
    """Run a command in this process and return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "300")
        patch.setattr("sys.argv", ["command", *map(str, arguments)])
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        with pytest.raises(SystemExit) as stop:
            main()
    return stop.value.code or 0, out.getvalue(), err.getvalue()


def classify(*arguments):
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        code = predict.main(list(map(str, arguments)))
    return code, json.loads(out.getvalue())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def folder(place):
    folder = write_pictures(place / "-meine Bilder ü", 30)
    (folder / DARK / "kaputt.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def trained(folder, place):
    """Return the folder of a run, and what the command printed; the folder's path is relative."""
    run = place / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        arguments = ("--model", "nais_dense", "--threshold", 1, "--epochs", 3)
        code, out, err = command(
            fit.main, *arguments, "--data", folder.name, "--image-size", "12x16", "--output", run
        )
    assert (code, err) == (0, "")
    return run, out


@pytest.fixture(scope="module")
def zoo(trained, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        code, _, err = command(publish.main, trained[0], "--zoo", place / "zoo")
    assert (code, err) == (0, "")
    return place / "zoo"


def test_the_run_of_a_folder(trained, folder):
    run, out = trained
    assert f"left out: {folder.name}/{DARK}/kaputt.png is empty: expected a picture" in out
    assert "44 training, 4 validation, 12 test images" in out
    config = json.loads((run / "config.json").read_text())
    assert config["data"]["classes"] == [DARK, LIGHT]
    assert config["data"]["input_shape"] == [12, 16, 3]
    assert config["settings"]["dataset"] == f"folder:{folder.name}"
    result = json.loads((run / "result.json").read_text())
    assert result["test_accuracy"] == 1
    # The command of the card trains with the same settings: its batch too, which was chosen.
    words = shlex.split(result["command"])
    assert words[words.index("--data") + 1] == folder.name
    assert words[words.index("--batch-size") + 1] == "8"
    assert "--dataset" not in words


def test_the_published_model_of_a_folder(zoo, folder, place, monkeypatch):
    index = json.loads((zoo / "index.json").read_text())
    ((name, entry),) = index["models"].items()
    assert name == "nais_dense_meine_bilder_u"
    assert entry["classes"] == [DARK, LIGHT]
    assert entry["data_source"]["folder"] == folder.name
    card = (zoo / name / "1" / "README.md").read_text()
    assert "ki.datasets.read_picture(path, (12, 16, 3))" in card
    assert f"{DARK}, {LIGHT}" in card
    assert str(place) not in card.replace(str(zoo), "")
    texts = {
        prop.key: prop.value for prop in onnx.load(zoo / name / "1" / f"{name}.onnx").metadata_props
    }
    assert json.loads(texts["classes"]) == [DARK, LIGHT]
    assert json.loads(texts["mean"]) == entry["mean"]
    model = ki.load_pretrained(name, zoo)
    path = next((folder / LIGHT).iterdir())
    image = ki.datasets.read_picture(path, model.input_shape[1:])
    logits = np.array(model(model.preprocessing(image[np.newaxis])))
    assert model.class_names[logits.argmax()] == LIGHT


def test_the_check_of_a_folder_s_model(zoo, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    code, out, _ = command(publish.main, "--check", "--zoo", zoo)
    assert code == 0
    assert "100.00%" in out
    assert "not checked" not in out
    # On another machine, without the pictures.
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(publish.main, "--check", "--zoo", zoo)
    assert code == 0
    assert "are not on this machine: -meine Bilder ü is not a folder." in out
    assert "Logits, depths and test accuracy are not checked." in out
    assert "no data" in out
    # Other pictures in a folder of the same name.
    write_pictures(tmp_path / "-meine Bilder ü", 5)
    code, out, _ = command(publish.main, "--check", "--zoo", zoo)
    assert code == 0
    assert "in -meine Bilder ü are not those of the training." in out


def test_predictions_of_picture_files(zoo, folder, capsys):
    (net,) = zoo.rglob("*.onnx")
    files = [*sorted((folder / DARK).glob("-*"))[:5], *sorted((folder / LIGHT).iterdir())[:5]]
    code, found = classify(net, *files, "--json")
    assert code == 0
    assert [entry["top"][0]["class"] for entry in found] == [DARK] * 5 + [LIGHT] * 5


def test_a_run_is_resumed_and_only_with_its_pictures(trained, folder, place, tmp_path, monkeypatch):
    run, _ = trained
    monkeypatch.chdir(place)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    code, out, err = command(fit.main, "--resume", copy, "--epochs", 4)
    assert (code, err) == (0, "")
    assert "epoch   4/4" in out
    monkeypatch.chdir(tmp_path)
    code, _, err = command(fit.main, "--resume", copy, "--epochs", 5)
    assert (code, err.count("\n")) == (2, 1)
    assert "--data must be a folder of class folders that can be read" in err
    write_pictures(tmp_path / folder.name, 30)
    (tmp_path / folder.name / DARK / "kaputt.png").write_bytes(b"x")
    code, _, err = command(fit.main, "--resume", copy, "--epochs", 5)
    assert code == 2
    assert "is not the one that" in err
    assert f"restore its files ({folder.name})" in err


def test_training_from_disk_gives_the_same_weights(trained, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(assembly, "memory_limit", lambda: 0)
    words = shlex.split(json.loads((trained[0] / "result.json").read_text())["command"])
    code, _, err = command(fit.main, *words[3:], "--output", tmp_path / "run")
    assert (code, err) == (0, "")
    runs = (trained[0], tmp_path / "run")
    first, second = (
        keras.models.load_model(run / "last.keras", compile=False).get_weights() for run in runs
    )
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


def test_a_picture_that_goes_in_the_course_of_a_run(folder, tmp_path, monkeypatch):
    own = write_pictures(tmp_path / "own", 8)
    monkeypatch.setattr(assembly, "memory_limit", lambda: 0)
    begin = session._Session.run

    def lose(self, *arguments):
        for path in own.rglob("*.png"):
            path.unlink()
        return begin(self, *arguments)

    monkeypatch.setattr(session._Session, "run", lose)
    arguments = ("--model", "nais_dense", "--data", own, "--epochs", 1)
    code, _, err = command(fit.main, *arguments, "--output", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be opened: No such file or directory, but could be when the run started" in err
    assert f"--resume {tmp_path / 'run'}" in err


@pytest.mark.parametrize(
    ("name", "splits", "shape", "size"),
    [
        ("oxford_flowers102", {"train": 24, "validation": 8, "test": 8}, (None, None, 3), 16),
        ("fashion_mnist", {"train": 40, "test": 8}, (28, 28, 1), None),
    ],
)
def test_a_set_of_tfds_by_name(name, splits, shape, size, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

    def draw(generator, label):
        image = draw_flower(generator, label)
        return image if shape[0] is None else np.resize(image, shape)

    write_set(tmp_path / "tfds", name, splits, shape, draw=draw)
    sized = () if size is None else ("--image-size", size)
    run = tmp_path / "run"
    arguments = ("--model", "nais_dense", "--dataset", name, "--epochs", 3)
    code, out, err = command(fit.main, *arguments, *sized, "--output", run)
    assert (code, err) == (0, "")
    assert json.loads((run / "result.json").read_text())["test_accuracy"] == 1
    if size is None:
        return
    code, _, err = command(publish.main, run, "--zoo", tmp_path / "zoo", "--format", "onnx")
    assert (code, err) == (0, "")
    code, out, _ = command(publish.main, "--check", "--zoo", tmp_path / "zoo")
    assert code == 0
    assert "100.00%" in out
    # Prepared again, in another order: the test images would be others.
    change_records(tmp_path / "tfds", "train", reversed)
    code, _, err = command(fit.main, "--resume", run, "--epochs", 4)
    assert code == 2
    assert f"the data set '{name}' is not the one that {run} was started with" in err
    code, out, _ = command(publish.main, "--check", "--zoo", tmp_path / "zoo")
    assert code == 0
    assert "are not those of the training. Logits" in out
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    code, out, _ = command(publish.main, "--check", "--zoo", tmp_path / "zoo")
    assert code == 0
    assert f"The images of {name} are not on this machine: {tmp_path / 'none' / name} is not" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "a", "--dataset", "digits"), "--data and --dataset exclude each other"),
        (("--data", ""), "--data must name a folder"),
        (("--data", "nowhere"), "--data must be a folder of class folders that can be read"),
        (("--image-size", "big"), "--image-size must be SIDE or HEIGHTxWIDTH"),
        (("--image-size", "16"), "--image-size must be left out: the images of digits have 8x8"),
        (("--test-share", 1), "--test-share must be above 0 and below 1"),
        (("--test-share", 0.5), "--test-share must be 0.2, the default: digits has a fixed"),
    ],
)
def test_what_is_refused_in_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(fit.main, "--model", "nais_dense", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not any(tmp_path.iterdir())
