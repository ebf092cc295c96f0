"""`python -m export.publish`: what it refuses, and what a failure leaves in the zoo."""

import errno
import hashlib
import json
import re
import resource
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import keras_iterconv as ki
from export import publish
from export import zoo_entry as entry


def read_tree(folder):
    """Return the contents of all files in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    assert "cannot be written" in told
    assert "its previous content is kept" in told
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
    assert "cannot be written" in told
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
    assert f"small is not published; the previous content of {zoo} is kept\n" in screen
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


@pytest.mark.usefixtures("quick")
def test_at_each_step_the_old_entry_is_whole(publish_command, zoo, finished_run, monkeypatch):
    """So it is after a kill at that step: a process that has ended writes nothing more."""
    before, steps = (zoo / "index.json").read_text(), []

    class Watching(Console):
        def print(self, line, **options):
            step = line.removeprefix("small: ")
            steps.append(step)
            if not step.startswith("published in "):
                assert (zoo / "index.json").read_text() == before
                for file, facts in json.loads(before)["models"]["small"]["files"].items():
                    content = (zoo / file).read_bytes()
                    assert hashlib.sha256(content).hexdigest() == facts["sha256"]

    monkeypatch.setattr(publish, "make_console", Watching)
    assert publish_command(finished_run, "--name", "small", "--zoo", zoo)[0] == 0
    assert steps == [
        "computing the certificate",
        "converting to ONNX",
        "writing the SavedModel",
        "drawing the figure of depth",
        f"published in {zoo}",
    ]
    assert (zoo / "index.json").read_text() != before


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
        del config["data"]["scale"]
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
        ((), "RUN or --check must be given, and not both"),
        (("RUN", "--check"), "RUN or --check must be given, and not both"),
        (("RUN", "--format", "pytorch"), "--format must be of saved_model, onnx: pytorch"),
        (("RUN", "--format", ""), "--format must be"),
        (("RUN", "--name", "../evil"), "the model's name must consist of a-z"),
        (("RUN", "--name", 300 * "a"), "at most 100 characters"),
        (("RUN", "--zoo", ""), "--zoo must name a folder"),
        (("--check", "--zoo", ""), "--zoo must name a folder"),
        (("RUN", "--zoo", "a\udcff"), "--zoo must be a path in UTF-8: 'a\\udcff'"),
        (("RUN", "--zoo", 300 * "a"), "File name too long"),
        (("--check", "--zoo", 300 * "a"), "index.json is missing"),
        (("RUN", "--trust"), "--trust must be used with --check"),
        (("--check", "--license", "MIT"), "--license must be used with a RUN"),
        (("RUN", "--license", "my own"), "--license must be an SPDX name, such as CC-BY-4.0: my"),
        (("nowhere",), "nowhere is not a folder; name the folder of a run"),
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
