"""The command line of the experiments: what it writes, and what it refuses in one line."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iterconv import cli
from training.reproduce import __main__ as reproduce
from training.reproduce import coupling_study as coupling
from training.reproduce import inverse_problem, inverse_problem_figure

ROOT = Path(__file__).parents[3]
BAD = [
    (("figure2",), "figure2"),
    (("figure1", "--output", "a.jpg"), "--output must end in .png, .pdf, .svg: 'a.jpg'"),
    (("figure1", "--output", ""), "--output must end in"),
    (("figure1", "--output", "nowhere/a.png"), "a file in a folder that exists"),
    (("coupling", "--output", ""), "--output must name a folder"),
    (("coupling", "--output", "caf\udce9"), "--output must be a path in UTF-8"),
    (("coupling", "--seeds", 0), "--seeds must be from 1 to 100: 0"),
    (("figure1", "--runs", 0), "--runs must be from 1 to 100: 0"),
    (("figure1", "--seed", -1), "--seed must be from 0"),
    (("figure1", "--seed", 2**32), "--seed must be from 0"),
    (("figure1", "--seed", "one"), "--seed"),
    (("figure1", "--training-steps", 0), "--training-steps must be an integer"),
    (("figure1", "--update-scale", 0), "--update-scale must lie in (0, 10]"),
    (("figure1", "--update-scale", "nan"), "--update-scale must lie in (0, 10]"),
    (("figure1", "--epochs", 3), "--epochs"),
]


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that runs a command line in this process.

    It returns the exit code, what went to the screen, and what went to the error stream.
    """

    def run(*arguments, main=reproduce.main):
        monkeypatch.setattr("sys.argv", ["reproduce", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


@pytest.fixture
def untrained(monkeypatch):
    """Leave the training out, and note what was asked for."""
    asked = []

    def train(kind, seed, **settings):
        asked.append((kind, seed, *settings.values()))
        return inverse_problem.make_net(kind, seed, blocks=4)

    monkeypatch.setattr(inverse_problem, "train_net", train)
    return asked


def test_a_run_writes_the_picture_and_shows_the_errors(command, tmp_path, monkeypatch):
    # Half the blocks are traced in half the time.
    half = functools.partial(inverse_problem.train_net, blocks=4)
    monkeypatch.setattr(inverse_problem, "train_net", half)
    picture = tmp_path / "figure.png"
    code, screen, error = command(
        "figure1", "--output", picture, "--runs", 1, "--training-steps", 60
    )
    assert (code, error) == (0, "")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "training recurrent, seed 0" in screen
    assert "mean distance from the true z" in screen
    assert f"The figure is in {picture}" in screen


def test_the_options_reach_the_training(command, untrained, tmp_path):
    code, _, error = command(
        "figure1", "--output", tmp_path / "f.svg", "--seed", 4, "--runs", 2,
        "--training-steps", 7, "--update-scale", 0.5,
    )  # fmt: skip
    assert (code, error) == (0, "")
    kinds = inverse_problem.KINDS
    assert untrained == [(kind, seed, 7, 0.5) for kind in kinds for seed in (4, 5)]
    assert "<svg" in (tmp_path / "f.svg").read_text()


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_what_cannot_be_is_refused_in_one_line(command, tmp_path, monkeypatch, arguments, said):
    # A comparison of hours would hide a check that is gone.
    monkeypatch.setattr(coupling, "train_all", None)
    monkeypatch.chdir(tmp_path)
    code, screen, error = command(*arguments)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in screen + error
    assert list(tmp_path.iterdir()) == []


def test_too_many_runs_are_refused(command, monkeypatch):
    # Hundreds of trainings would hide a check that is gone.
    monkeypatch.setattr(inverse_problem, "run_experiment", None)
    code, _, error = command("figure1", "--runs", 101)
    assert (code, error) == (2, "Error: --runs must be from 1 to 100: 101\n")


def test_a_net_that_did_not_train_is_refused_in_one_line(command, untrained, tmp_path, monkeypatch):
    measure = inverse_problem.mean_error
    monkeypatch.setattr(
        inverse_problem, "mean_error", lambda readout, z: measure(readout, z) * np.nan
    )
    code, _, error = command("figure1", "--output", tmp_path / "f.png", "--runs", 1)
    assert (code, error.count("\n")) == (1, 1)
    assert "not finite after training" in error
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_line(command, untrained, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inverse_problem_figure, "draw_figure", full)
    code, _, error = command("figure1", "--output", tmp_path / "f.png", "--runs", 1)
    assert (code, error.count("\n")) == (2, 1)
    assert "No space left on device" in error


def test_the_installed_script_has_the_experiments(command):
    code, _, error = command("reproduce", "figure1", "--runs", 0, main=cli.main)
    assert (code, error) == (2, "Error: --runs must be from 1 to 100: 0\n")


def test_the_module_runs():
    answer = subprocess.run(
        [sys.executable, "-m", "training.reproduce", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Usage: python -m training.reproduce" in answer.stdout
    assert "figure1" in answer.stdout
