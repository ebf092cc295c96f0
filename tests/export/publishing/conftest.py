"""A run and the zoo that it is published in, which the tests share, and the command."""

import keras_iterconv  # noqa: F401, isort: skip  # settles TensorFlow's environment before it is loaded

import io
import json
import shutil

import onnx
import pytest
from rich.console import Console

from export import publish
from export import zoo_entry as entry
from training import session
from training.settings import make_settings


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


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """Return a function that trains a small net for one epoch, and returns its folder."""

    def run(**given):
        quick = {"dataset": "digits", "epochs": 1, "batch_size": 32, "limit_train": 64}
        folder = tmp_path_factory.mktemp("run") / "run"
        session.start(make_settings(**quick, **given), str(folder), Console(file=io.StringIO()))
        return folder

    return run


@pytest.fixture(scope="session")
def finished_run(train):
    """Return the folder of the run that most tests publish."""
    return train(model="nais_mnist", threshold=1.5, max_unroll=25, step_size=1.0)


@pytest.fixture(scope="session")
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


@pytest.fixture
def undescribed(monkeypatch, published):
    """Leave out of a publication what costs time and says nothing of its files."""
    (before,) = json.loads((published / "index.json").read_text())["models"].values()
    monkeypatch.setattr(entry, "_certify", lambda *args: before["certificate"])
    monkeypatch.setattr(entry, "_draw_depth", lambda *args: None)


@pytest.fixture
def quick(monkeypatch, undescribed):
    """Leave out of a publication what costs time and writes nothing."""
    monkeypatch.setattr(entry, "to_onnx", lambda *args: onnx.ModelProto())
    monkeypatch.setattr(entry, "count_operators", lambda model: {})
