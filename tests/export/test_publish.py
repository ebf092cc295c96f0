"""`python -m export.publish`: what it writes, what it checks, what it refuses."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from iterconv.training import fit, session
from iterconv.training.settings import make_settings
from onnx import numpy_helper
from rich.console import Console

import keras_iterconv as ki
from export import check, entry, publish
from export import entry as zoo_entry
from export.classifier import OnnxClassifier
from export.zoo import check_index

QUICK = {"dataset": "digits", "epochs": 1, "batch_size": 32, "limit_train": 64}


@pytest.fixture
def publish_command(monkeypatch, capsys):
    """Return a function that runs the command in this process: exit code, screen, error stream."""

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr("sys.argv", ["publish", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            publish.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """Train a small net for one epoch, and return its folder."""
    folder = tmp_path_factory.mktemp("run") / "run"
    settings = make_settings(
        model="nais_mnist", threshold=1.5, max_unroll=25, step_size=1.0, **QUICK
    )
    session.start(settings, str(folder), Console(file=io.StringIO()))
    return folder


@pytest.fixture(scope="module")
def published(finished_run, tmp_path_factory):
    """Return a zoo that holds the net of that run."""
    zoo = tmp_path_factory.mktemp("published") / "zoo"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["publish", str(finished_run), "--name", "small", "--zoo", str(zoo)]
        patch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as stop:
            publish.main()
    assert stop.value.code == 0
    return zoo


@pytest.fixture
def zoo(published, tmp_path):
    return shutil.copytree(published, tmp_path / "zoo")


def read_tree(folder):
    """Return the contents of all files in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def quick(monkeypatch, zoo):
    """Leave out of a publication what costs time and writes nothing."""
    (published,) = json.loads((zoo / "index.json").read_text())["models"].values()
    monkeypatch.setattr(entry, "_certify", lambda *args: published["certificate"])
    monkeypatch.setattr(entry, "_draw_depth", lambda *args: None)
    monkeypatch.setattr(entry, "to_onnx", lambda *args: onnx.ModelProto())
    monkeypatch.setattr(entry, "count_operators", lambda model: {})


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
    run = zoo_entry.read_run(finished_run)
    zoo_entry._draw_depth(run, "small", tmp_path / "depth.png", print)
    assert measured[0].mean.tolist() == run.data["mean"]
    assert measured[0].std.tolist() == run.data["std"]


def test_a_capped_residual_net(publish_command, tmp_path):
    """Its depth is fixed: no threshold in the file, no figure of depth in the card."""
    settings = make_settings(model="icr_w8", blocks=2, **QUICK)
    session.start(settings, str(tmp_path / "run"), Console(file=io.StringIO()))
    zoo = tmp_path / "zoo"
    code, _, error = publish_command(tmp_path / "run", "--zoo", zoo)
    assert (code, error) == (0, "")
    (entry,) = json.loads((zoo / "index.json").read_text())["models"].values()
    assert entry["depth"] is None
    # Each capped at 0.95, by itself.
    assert entry["certificate"]["blocks"] == 6
    assert 1 < entry["certificate"]["largest_factor"] <= 1.951
    card = (zoo / "icr_w8_digits" / "1" / "README.md").read_text()
    assert "depth.png" not in card
    code, screen, _ = publish_command("--check", "--zoo", zoo)
    assert code == 0, screen
    assert "100.000%" in screen


def test_unit_pixels_and_no_validation(publish_command, tmp_path, draw_raw):
    settings = make_settings(
        model="nais_mnist", threshold=0.1, pixels="unit", validation_share=0.0, **QUICK
    )
    session.start(settings, str(tmp_path / "run"), Console(file=io.StringIO()))
    zoo = tmp_path / "zoo"
    code, _, error = publish_command(tmp_path / "run", "--zoo", zoo, "--name", "unit")
    assert (code, error) == (0, "")
    (entry,) = json.loads((zoo / "index.json").read_text())["models"].values()
    assert (entry["mean"], entry["std"]) == ([0.0], [16.0])
    assert "validation_accuracy" not in entry["result"]
    assert "--pixels unit" in entry["command"]
    card = (zoo / "unit" / "1" / "README.md").read_text()
    assert "`model.preprocessing` is image / 16: values from 0 to 1" in card
    raw = np.clip(draw_raw(3), 0, 16)
    model = ki.load_pretrained("unit", zoo)
    expected = model(raw / 16).numpy()
    np.testing.assert_allclose(model.preprocessing(raw), raw / 16, rtol=1e-6)
    logits = OnnxClassifier(zoo / "unit" / "1" / "unit.onnx").classify(raw).logits
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    code, screen, _ = publish_command("--check", "--zoo", zoo)
    assert code == 0, screen


def test_a_check_of_what_was_published(publish_command, published):
    code, screen, error = publish_command("--check", "--zoo", published, "--trust")
    assert (code, error) == (0, "")
    assert "good" in screen
    assert ".keras, ONNX and SavedModel files are run." in screen
    assert "Not in the index" not in screen
    accuracy = json.loads((published / "index.json").read_text())["models"]["small"]["result"]
    assert f"{accuracy['test_accuracy']:.2%}" in screen


@pytest.mark.parametrize(
    "file",
    [
        "small.keras",
        "small.onnx",
        "README.md",
        "depth.png",
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data-00000-of-00001",
    ],
)
def test_a_check_sees_a_changed_byte(publish_command, zoo, file):
    path = zoo / "small" / "1" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{file} is not the file that was published" in error
    assert "bad" in screen


def test_a_check_sees_what_the_index_claims(publish_command, zoo):
    index = json.loads((zoo / "index.json").read_text())
    result = index["models"]["small"]["result"]
    result["test_accuracy"] = (result["test_accuracy"] + 0.5) % 1
    (zoo / "index.json").write_text(json.dumps(index))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "of the test images are right" in error


def rewrite(zoo, file, change):
    """Change a published file, and its facts in the index."""
    path = zoo / "small" / "1" / file
    change(path)
    index = json.loads((zoo / "index.json").read_text())
    facts = index["models"]["small"]["files"][f"small/1/{file}"]
    facts.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size)
    (zoo / "index.json").write_text(json.dumps(index))


def change_onnx(change):
    def apply(path):
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)

    return apply


def change_weight(model, factor):
    """Multiply the largest constant of the outermost graph."""
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(largest) * np.float32(factor)
    largest.CopyFrom(numpy_helper.from_array(array, largest.name))


def change_metadata(model, key, text):
    next(prop for prop in model.metadata_props if prop.key == key).value = text


def add_metadata(model):
    model.metadata_props.add(key="notes", value=2**20 * "a")


def with_external_weights(path):
    """Return an ONNX file that has the first constant in another file."""
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return model.SerializeToString()


WRONG = {
    "much metadata": ("small.onnx", change_onnx(add_metadata), "letters of itself"),
    "another file's weights": (
        "small.onnx",
        lambda path: path.write_bytes(with_external_weights(path)),
        "takes weights from other files",
    ),
    "other weights": ("small.onnx", change_onnx(lambda m: change_weight(m, 1.01)), "differ"),
    "NaN weights": ("small.onnx", change_onnx(lambda m: change_weight(m, np.nan)), "differ"),
    "no protobuf": ("small.onnx", lambda path: path.write_bytes(b"onnx"), "small:"),
    "classes": (
        "small.onnx",
        change_onnx(lambda m: change_metadata(m, "classes", json.dumps(list("9876543210")))),
        "the ONNX file's classes is",
    ),
    "endless classes": (
        "small.onnx",
        change_onnx(lambda m: change_metadata(m, "classes", json.dumps(10 * [10_000 * "a"]))),
        "the ONNX file's classes is",
    ),
    "threshold": (
        "small.onnx",
        change_onnx(lambda m: change_metadata(m, "threshold", "77")),
        "says threshold 77",
    ),
    "no archive": ("small.keras", lambda path: path.write_bytes(b"PK"), "is damaged"),
    "no graph": (
        "saved_model/saved_model.pb",
        lambda path: path.write_bytes(b"nothing"),
        "small:",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_check_sees_what_a_hash_does_not(publish_command, zoo, how):
    file, change, said = WRONG[how]
    rewrite(zoo, file, change)
    code, screen, error = publish_command("--check", "--zoo", zoo, "--trust")
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("Error: ")
    assert said in error
    assert len(error) < 1000
    assert "bad" in screen


def test_a_check_reads_no_onnx_file_that_is_too_large(publish_command, zoo, monkeypatch):
    monkeypatch.setattr(check, "ONNX_LIMIT", 1000)
    monkeypatch.setattr("onnx.load", lambda *args, **kwargs: pytest.fail("it was read"))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "has more than 1,000 bytes" in error


def test_a_check_compares_a_saved_model_that_is_alone(publish_command, finished_run, tmp_path):
    zoo = tmp_path / "zoo"
    assert (
        publish_command(finished_run, "--zoo", zoo, "--name", "small", "--format", "saved_model")[0]
        == 0
    )

    def spoil_numbers(path):
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        # The exponent of a few weights.
        content[len(content) // 2 : len(content) // 2 + 400 : 4] ^= 0x3F
        path.write_bytes(content.tobytes())

    rewrite(zoo, "saved_model/variables/variables.data-00000-of-00001", spoil_numbers)
    code, _, error = publish_command("--check", "--zoo", zoo, "--trust")
    assert code == 2
    assert error.startswith("Error: small")


def forbid_saved_models(monkeypatch):
    monkeypatch.setattr("tensorflow.saved_model.load", lambda *a, **k: pytest.fail("it was run"))


def test_a_stranger_s_saved_model_is_not_run(publish_command, zoo, monkeypatch):
    forbid_saved_models(monkeypatch)
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "SavedModels, which may touch any file, only with --trust" in screen
    assert "good" in screen


@pytest.mark.parametrize("own", [False, True])
def test_the_zoo_s_own_saved_models_are_run_after_hashes(publish_command, zoo, monkeypatch, own):
    if own:
        monkeypatch.setattr(check, "CHECKOUT_ZOO", zoo)
    (zoo / "small" / "1" / "README.md").write_text("changed")
    forbid_saved_models(monkeypatch)
    monkeypatch.setattr(check, "OnnxClassifier", lambda path: pytest.fail("it was run"))
    arguments = () if own else ("--trust",)
    code, screen, error = publish_command("--check", "--zoo", zoo, *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert "README.md is not the file that was published" in error
    assert ".keras, ONNX and SavedModel files are run." in screen


def test_the_help_says_what_a_check_runs(publish_command):
    code, screen, _ = publish_command("--help")
    assert code == 0
    told = " ".join(screen.replace("│", " ").split())
    assert "run its .keras and ONNX files" in told
    assert "may read and write any file" in told


def test_a_check_goes_on_with_what_replaced_a_model(publish_command, zoo, monkeypatch):
    """A publication removes the old files while they are read."""
    real = check.load_pretrained

    def replace_first(name, folder):
        monkeypatch.setattr(check, "load_pretrained", real)
        (zoo / "small" / "1").rename(zoo / "small" / "2")
        index = (zoo / "index.json").read_text()
        (zoo / "index.json").write_text(index.replace("small/1/", "small/2/"))
        return real(name, folder)

    monkeypatch.setattr(check, "load_pretrained", replace_first)
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "good" in screen


def test_a_check_tells_of_files_that_are_not_published(publish_command, zoo):
    (zoo / "small" / "[red]notes").write_text("mine")
    (zoo / "small" / "\x1b[2J").write_text("mine")
    (zoo / "link").symlink_to(zoo / "small")
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "Not in the index: link, 'small/\\x1b[2J', small/[red]notes\n" in screen


@pytest.mark.parametrize("file", ["assets/secret", "variables/variables.data-00001-of-00002"])
def test_a_saved_model_with_files_that_are_not_verified_is_not_run(
    publish_command, zoo, monkeypatch, file
):
    planted = zoo / "small" / "1" / "saved_model" / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text("planted")
    forbid_saved_models(monkeypatch)
    code, _, error = publish_command("--check", "--zoo", zoo, "--trust")
    assert (code, error.count("\n")) == (2, 1)
    assert f"{file}' is not in the index" in error


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


FULL = {
    "Keras": ("keras.Model.save", OSError(errno.ENOSPC, "No space left on device")),
    "HDF5": ("keras.Model.save", RuntimeError("Unable to flush file's cached information")),
    "ONNX": ("onnx.save", OSError(errno.ENOSPC, "No space left on device")),
    "SavedModel": (
        "tensorflow.saved_model.save",
        tf.errors.ResourceExhaustedError(None, None, "a/b\nNo space left on device"),
    ),
    "SavedModel's index": (
        "tensorflow.saved_model.save",
        tf.errors.UnknownError(None, None, "a.tempstate; No space left on device"),
    ),
    "curves": ("shutil.copyfile", OSError(errno.EDQUOT, "Disk quota exceeded")),
    "index": ("os.replace", OSError(errno.ENOSPC, "No space left on device")),
}


@pytest.mark.parametrize("writer", FULL)
@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_one_line(publish_command, zoo, finished_run, monkeypatch, writer):
    place, error = FULL[writer]

    def fail(*args, **kwargs):
        raise error

    if not writer.startswith("SavedModel"):
        monkeypatch.setattr(entry, "write_saved_model", lambda *args: None)
    before = read_tree(zoo)
    monkeypatch.setattr(place, fail)
    code, _, told = publish_command(finished_run, "--name", "small", "--zoo", zoo)
    monkeypatch.undo()
    assert (code, told.count("\n")) == (2, 1), told
    assert "could not be written" in told
    assert "what was there is kept" in told
    assert read_tree(zoo) == before


@pytest.mark.usefixtures("quick")
def test_a_saved_model_that_outgrows_the_disk(publish_command, zoo, finished_run, monkeypatch):
    """TensorFlow itself meets the limit: a file of the SavedModel is larger than is allowed."""
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = entry.write_saved_model

    def write_little(*args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
        try:
            real(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))

    monkeypatch.setattr(entry, "write_saved_model", write_little)
    before = read_tree(zoo)
    arguments = (finished_run, "--name", "small", "--zoo", zoo, "--format", "saved_model")
    code, _, told = publish_command(*arguments)
    assert (code, told.count("\n")) == (2, 1), told
    assert "could not be written" in told
    assert read_tree(zoo) == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("moment", ["read_run", "_certify", "commit"])
def test_an_interruption_says_what_is_kept(publish_command, zoo, finished_run, monkeypatch, moment):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, moment, interrupt)
    before = read_tree(zoo)
    arguments = (finished_run, "--name", "small", "--zoo", zoo, "--format", "onnx")
    code, screen, error = publish_command(*arguments)
    assert (code, error) == (130, "Interrupted.\n")
    assert f"small is not published; what was in {zoo} is kept\n" in screen
    assert read_tree(zoo) == before


def spoil_weights(run):
    model = keras.models.load_model(run / "last.keras", compile=False)
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    model.save(run / "last.keras")


def spoil_result(run):
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "test_accuracy": float("nan")}))


def put_code_in(run):
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Lambda(keras.ops.relu)(inputs)
    ki.IterativeModel(inputs, outputs).save(run / "last.keras")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_weights, "is not finite"),
        (spoil_result, "NaN|not finite"),
        (put_code_in, "holds `Lambda`"),
    ],
)
def test_models_that_must_not_be_published(publish_command, finished_run, tmp_path, spoil, said):
    run = shutil.copytree(finished_run, tmp_path / "run")
    spoil(run)
    code, _, error = publish_command(run, "--zoo", tmp_path / "zoo")
    assert (code, error.count("\n")) == (2, 1), error
    assert re.search(said, error)
    assert not (tmp_path / "zoo").exists()


def test_a_kill_of_the_command_leaves_the_old_entry_whole(zoo, finished_run):
    """At each thing that it says it does."""
    before = (zoo / "index.json").read_text()
    command = [sys.executable, "-m", "export.publish", finished_run, "--name", "small"]
    for moment in ("converting to ONNX", "writing the SavedModel", "drawing its depth"):
        with subprocess.Popen(
            [*command, "--zoo", zoo],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert any(moment in line for line in process.stdout)
            process.kill()
        assert (zoo / "index.json").read_text() == before
        for file, facts in json.loads(before)["models"]["small"]["files"].items():
            assert hashlib.sha256((zoo / file).read_bytes()).hexdigest() == facts["sha256"]


def test_a_place_outside_is_one_line(publish_command, zoo):
    index = json.loads((zoo / "index.json").read_text())
    files = index["models"]["small"]["files"]
    files["../../evil.onnx"] = files.pop("small/1/small.onnx")
    (zoo / "index.json").write_text(json.dumps(index))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "evil.onnx" in error


def spoil(folder, how):
    if how == "no result":
        (folder / "result.json").unlink()
    elif how == "no model":
        (folder / "last.keras").unlink()
    elif how == "damaged model":
        (folder / "last.keras").write_bytes(b"PK")
    elif how == "damaged result":
        (folder / "result.json").write_text("{")
    elif how == "another version":
        config = json.loads((folder / "config.json").read_text())
        config["settings"]["speed"] = 3
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no result", "holds no finished run: result.json is missing"),
        ("no model", "holds no finished run: last.keras is missing"),
        ("damaged model", "last.keras"),
        ("damaged result", "result.json"),
        ("another version", "config.json"),
    ],
)
def test_runs_that_cannot_be_published(publish_command, finished_run, tmp_path, how, said):
    run = shutil.copytree(finished_run, tmp_path / "run")
    spoil(run, how)
    code, _, error = publish_command(run, "--zoo", tmp_path / "zoo")
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("Error: ")
    assert said in error
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give the folder of a run, or --check alone"),
        (("RUN", "--check"), "give the folder of a run, or --check alone"),
        (("RUN", "--format", "pytorch"), "--format must be of saved_model, onnx: pytorch"),
        (("RUN", "--format", ""), "--format must be"),
        (("RUN", "--name", "../evil"), "the model's name must be of a-z"),
        (("RUN", "--name", 300 * "a"), "at most 100 characters"),
        (("RUN", "--zoo", ""), "--zoo must name a folder"),
        (("--check", "--zoo", ""), "--zoo must name a folder"),
        (("RUN", "--zoo", "a\udcff"), "--zoo must be a path in UTF-8: 'a\\udcff'"),
        (("RUN", "--zoo", 300 * "a"), "File name too long"),
        (("--check", "--zoo", 300 * "a"), "index.json is missing"),
        (("RUN", "--trust"), "--trust belongs to --check"),
        (("nowhere",), "nowhere is no folder; name that of a run"),
        (("--check", "--zoo", "EMPTY"), "index.json is missing"),
        (("--chekc",), "--chekc"),
    ],
)
def test_arguments_that_cannot_be(
    publish_command, finished_run, tmp_path, monkeypatch, arguments, said
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"RUN": finished_run, "EMPTY": "empty"}
    code, _, error = publish_command(*(places.get(a, a) for a in arguments))
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("Error: ")
    assert said in error
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"model": "nais10"},
        {"model": "nais_adaptive", "dataset": "cifar10"},
        {"model": "nais_mnist", "dataset": "mnist", "threshold": 1e-3, "max_unroll": 7, "seed": 5},
        {"model": "nais10", **QUICK, "learning_rate": 0.1, "schedule": "step", "augment": "none"},
        {"model": "resnet_w8", "coupling": 0.5, "shared_initialization": False, "blocks": 2},
        {"model": "icr_w16", "shared_initialization": True, "lipschitz_cap": 0.5},
        {"model": "nais1", "mixed_precision": True, "strategy": "mirrored", "gradient": "frozen"},
        {"model": "resnet_w8", "coupling": 0.0, "weight_decay": 1e-4, "step_size": 0.25},
        {"model": "nais_mnist", "pixels": "unit", "validation_share": 0.0, "clip_norm": 0.0},
        {"preset": "nais-cifar10"},
        {"preset": "resnet-w16-digitclutter", "epochs": 3},
    ],
)
def test_the_command_gives_the_same_settings(given, monkeypatch):
    settings = make_settings(**given)
    words = shlex.split(zoo_entry.training_command(settings))
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
