"""The command line of the experiments: what it writes, and what it refuses in one line."""

import subprocess
import sys

import pytest
from rich.console import Console

from iterconv import cli
from iterconv.command_errors import UserError
from tests.support.processes import ROOT, SECONDS
from training.reproduce import __main__ as reproduce
from training.reproduce import runner

BAD = [
    (("figure2",), "figure2"),
    (("depth-figure", "nais", "--output", "a.jpg"), "--output must end in .png, .pdf, .svg: "),
    (("depth-figure", "nais", "--output", ""), "--output must end in"),
    (("depth-figure", "nais", "--output", "nowhere/a.png"), "a file in a folder that exists"),
    (("run", "coupling", "--output", ""), "--output must name a folder"),
    (("run", "coupling", "--output", "caf\udce9"), "--output must be a path in UTF-8"),
    (("run", "coupling", "--seeds", 0), "--seeds must be from 1 to 100: 0"),
    (("coupling",), "coupling"),
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


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_what_cannot_be_is_refused_in_one_line(command, tmp_path, monkeypatch, arguments, said):
    # An experiment of hours would hide a check that is gone.
    monkeypatch.setattr(runner, "run_experiment", None)
    monkeypatch.chdir(tmp_path)
    code, screen, error = command(*arguments)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in screen + error
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_line(tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"f.png cannot be written: No space left on device"):
        reproduce._draw(Console(), str(tmp_path / "f.png"), full, None)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_script_has_the_experiments(command):
    code, _, error = command("reproduce", "run", "toy", "--seeds", 0, main=cli.main)
    assert (code, error) == (2, "Error: --seeds must be from 1 to 100: 0\n")


def test_the_module_runs():
    answer = subprocess.run(
        [sys.executable, "-m", "training.reproduce", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Usage: python -m training.reproduce" in answer.stdout
    assert "run" in answer.stdout
