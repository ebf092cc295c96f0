"""The command line: what it takes, what it refuses and how it says so."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_iterconv.unrolling import MODES
from tests.support.processes import ROOT, SECONDS, process
from training import fit

# What a gradient mode needs of an update, in the words of the help.
NEEDED = {
    "linear": "a linear pre-activation",
    "tied": "tied weights",
    "two_sided": "tanh",
    "without_settling": "no settling",
}
QUICK = ("--epochs", 1, "--batch-size", 32, "--limit-train", 64)


def described(mode):
    exact = "exact" if mode.exact else "not exact"
    kept = "keeps a tensor for each update" if mode.keeps_tensors else "keeps none"
    needs = [f"needs {', '.join(NEEDED[need] for need in mode.needs)}"] if mode.needs else []
    return f"{mode.name}: {', '.join([exact, kept, *needs])}."


def test_the_help_of_gradient_is_the_table_of_modes():
    assert " ".join(["Gradient mode.", *map(described, MODES.values())]) == fit.GRADIENT_HELP


def test_a_run_of_the_command_line(fit_command, tmp_path):
    code, screen, error = fit_command(
        "--model", "nais_mnist", *QUICK, "--max-unroll", 7, "--output", tmp_path / "run"
    )
    assert (code, error) == (0, "")
    assert "7 updates in 1 block" in screen
    # The name promises MNIST, the default data set is another.
    assert "nais_mnist (a former name of nais_dense, for any data set)" in screen
    assert "digits: 64 training" in screen
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["model"], result["mean_depth"]) == ("nais_mnist", 7)
    assert f"{result['test_accuracy']:.2%}" in screen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--model or --preset must be given"),
        (("--model", "nais11"), "Did you mean 'nais1"),
        (("--model", "nais10", "--dataset", "digit"), "Did you mean 'digits'"),
        (("--preset", "nais-mnits"), "Did you mean 'nais-mnist'"),
        (("--model", "nais10", "--threshold", 0), "--threshold must lie in (0, inf)"),
        (("--model", "nais10", "--threshold", "nan"), "--threshold must lie in (0, inf)"),
        (("--model", "nais10", "--max-unroll", 0), "--max-unroll must be an integer"),
        (("--model", "nais10", "--step-size", 1.5), "--step-size must lie in (0, 1]"),
        (("--model", "nais10", "--step-size", 1e-50), "--step-size must be at least 1.18e-38"),
        (("--model", "resnet_w8", "--lipschitz-cap", 1e-40), "must be at least 1.18e-38"),
        (("--model", "nais10", "--weight-decay", 1e300), "--weight-decay must be below"),
        (("--model", "nais10", "--output", 300 * "x"), "cannot be used: File name too long"),
        (("--model", "nais10", "--output", "caf\udce9"), "--output must be a path in UTF-8"),
        (("--model", "nais10", "--checkpoint-minutes", -1), "--checkpoint-minutes must be"),
        (("--resume", 300 * "x"), "File name too long"),
        (("--resume", "caf\udce9"), "--resume must be a path in UTF-8"),
        (("--model", "nais10", "--gradient", "exact"), "--gradient must be"),
        (("--model", "nais10", "--gradient", "implicit"), "needs `--activation"),
        (("--model", "resnet_w8", "--gradient", "frozen"), "--gradient must be"),
        (("--model", "nais10", "--settling", -1), "--settling must lie in [0, inf)"),
        (("--model", "nais10", "--gradient", "frozen", "--settling", 1), "needs `--settling 0`"),
        (
            ("--model", "resnet54", "--threshold", 1e-4),
            "--threshold is not an option of resnet54, which takes --step-size, --activation, "
            "--blocks",
        ),
        (("--model", "resnet_w8", "--coupling", 1.5), "--coupling must be from 0 to 1"),
        (("--model", "resnet_w8", "--coupling", -0.1), "--coupling must be from 0 to 1"),
        (
            ("--model", "nais10", "--coupling", 0.5),
            "--coupling is not an option of nais10, which takes",
        ),
        (("--model", "resnet_w", "--coupling", 0.5), "Did you mean 'resnet_w"),
        (
            ("--model", "nais10", "--coupling", 0.5, "--independent-initialization"),
            "--independent-initialization is not an option of nais10",
        ),
        (("--model", "resnet_w8", "--lipschitz-cap", 0), "--lipschitz-cap must lie in (0, inf)"),
        (("--model", "resnet_w8", "--blocks", 0), "--blocks must be an integer"),
        (("--model", "nais10", "--epochs", "many"), "--epochs"),
        (("--model", "nais10", "--epoch", 3), "--epoch"),
        (("--model", "nais10", "--limit-train", 3), "--limit-train"),
        (("--model", "nais10", "--batch-size", 5000), "--batch-size"),
        (("--model", "nais10", "--seed", 99999999999), "--seed must be from 0"),
        (("--model", "nais10", "--max-unroll", 2**40), "--max-unroll must be at most"),
        (("--model", "nais10", "--output", ""), "--output must name a folder"),
        (("--resume", "nowhere"), "--resume nowhere is not a folder; name the folder of a run"),
        (("--resume", "nowhere", "--seed", 3), "leave out --seed"),
        (("--model", "nais10", "--checkpoint-minutes", "nan"), "--checkpoint-minutes must be at"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fit_command, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, screen, error = fit_command(*arguments)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in screen + error
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_into_the_same_folder_is_refused(fit_command, tmp_path):
    run = ("--model", "nais_mnist", *QUICK, "--output", tmp_path / "run")
    assert fit_command(*run)[0] == 0
    before = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir() if f.is_file()}
    code, _, error = fit_command(*run)
    assert code == 2
    assert "already holds a run" in error
    after = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir() if f.is_file()}
    assert before == after


def test_a_missing_extra_names_the_install(fit_command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    for option in (("--augment", "addons"), ("--schedule", "cyclical")):
        code, _, error = fit_command(
            "--model", "nais_mnist", *QUICK, *option, "--output", tmp_path / option[1]
        )
        assert code == 2
        assert 'pip install "keras-iterconv[addons]"' in error
        assert not (tmp_path / option[1]).exists()


def test_the_extra_s_augmentation_and_schedule_train(fit_command, tmp_path):
    pytest.importorskip("tensorflow_addons", reason="needs the extra `addons` (Python 3.11)")
    code, _, error = fit_command(
        "--model", "nais_mnist", *QUICK, "--augment", "addons", "--schedule", "cyclical",
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert (code, error) == (0, "")


def test_another_backend_is_one_line():
    answer = subprocess.run(
        [sys.executable, "-m", "training.fit", "--model", "nais10"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert answer.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in answer.stderr
    assert answer.stderr.count("\n") == 1


# A shell starts what it runs in the background deaf to Ctrl-C, and so are that one's children.
_HEARING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('training.fit', run_name='__main__')"
)


@contextlib.contextmanager
def command(*arguments):
    """Run the command line in a process of its own, and end it."""
    with process(
        [sys.executable, "-c", _HEARING, *map(str, arguments)],
        seconds=240,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as started:
        yield started


def epochs_done(run):
    """Return the epochs in a run's history."""
    history = run / "history.csv"
    lines = history.read_text().splitlines()[1:] if history.exists() else []
    return [int(line.split(",")[0]) for line in lines]


def wait_for_epochs(run, count, seconds=120):
    """Wait until a run has done some epochs."""
    end = time.monotonic() + seconds
    while len(epochs_done(run)) < count:
        assert time.monotonic() < end, f"no {count} epochs within {seconds} s"
        time.sleep(0.1)


def test_a_run_that_is_stopped_from_outside_can_go_on(fit_command, tmp_path):
    """By Ctrl-C, and then, when it goes on, by a kill."""
    run = tmp_path / "run"
    start = ("--model", "nais_mnist", "--epochs", 2000, "--batch-size", 32, "--output", run)
    for arguments, kind in ((start, signal.SIGINT), (("--resume", run), signal.SIGKILL)):
        done = len(epochs_done(run))
        with command(*arguments) as fitting:
            wait_for_epochs(run, done + 2)
            fitting.send_signal(kind)
            screen, error = fitting.communicate(timeout=60)
        assert "Traceback" not in screen + error
        if kind == signal.SIGINT:
            assert fitting.returncode == 130
            assert f"--resume {run}" in screen
    done = len(epochs_done(run))
    code, _, error = fit_command("--resume", run, "--epochs", done + 2)
    assert (code, error) == (0, "")
    assert epochs_done(run) == list(range(1, done + 3))
