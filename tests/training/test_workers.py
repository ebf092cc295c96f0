"""Two workers: equal to one process, one that is killed, and going on."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from tests.support.processes import ROOT, SECONDS, process
from training import session
from training.settings import make_settings


def run_nets(workers, path):
    command = [sys.executable, "-m", "tests.support.worker_net", str(workers), "small", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def test_two_workers_train_as_one_process(tmp_path):
    """In float64, on batches of 5 and 4 images, and a last one that leaves a worker without."""
    for workers in (1, 2):
        run_nets(workers, tmp_path / "net")
    alone, first, second = (np.load(tmp_path / f"net-{i}.npz") for i in ("alone", 0, 1))
    assert len(alone.files) > 30
    for name in alone.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], rtol=0, atol=1e-9, err_msg=name)
        if name.endswith("depth"):
            np.testing.assert_array_equal(first[name], alone[name])


OPTIONS = {
    "model": "nais_mnist", "dataset": "digits", "limit_train": 600, "batch_size": 45,
    "max_unroll": 2, "epochs": 12, "learning_rate": 0.005, "synchronized": True,
}  # fmt: skip


def launch(*arguments):
    return [sys.executable, "-m", "training.launch", "--workers", "2", "--", "fit", *arguments]


def rows(folder):
    with open(folder / "history.csv", encoding="utf-8") as stream:
        return [[float(value) for value in row.values()] for row in csv.DictReader(stream)]


def children(pid):
    """Return the processes that a process has started, in their order."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(number) for number in stream.read().split()]


def wait_for(condition, started):
    while not condition():
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads Linux's list of children")
def test_a_killed_worker_ends_all_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    given = [
        text
        for name, value in OPTIONS.items()
        for text in [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    ]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with process(launch(*given, "--output", str(folder)), **output) as started:
        wait_for(lambda: (folder / "history.csv").exists(), started)
        workers = children(started.pid)
        os.kill(workers[1], signal.SIGKILL)
        _, errors = started.communicate()  # `process` ends what takes too long
    assert started.returncode == 128 + signal.SIGKILL, errors
    assert "Error: worker 1 was killed by signal 9; the other workers are ended" in errors
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    finished = rows(folder)
    assert 1 <= len(finished) < OPTIONS["epochs"]

    command = launch("--resume", str(folder))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    # Neither repeated nor lost. The last row may have been written just before its checkpoint.
    together = rows(folder)
    assert together[: len(finished) - 1] == finished[:-1]
    result = session.start(make_settings(**OPTIONS), str(tmp_path / "alone"), Console(quiet=True))
    alone = rows(tmp_path / "alone")
    assert len(together) == len(alone) == result["epochs"]
    # Epoch, loss, accuracy, and the same of the validation: rounded otherwise in each step.
    np.testing.assert_allclose(
        [row[:5] for row in together], [row[:5] for row in alone], rtol=0.02, atol=0.01
    )


def test_a_refused_setting_ends_all_workers(tmp_path):
    command = launch("--model", "nais_mnist", "--threshold", "-1", "--output", str(tmp_path / "x"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "Error: --threshold must lie in" in done.stderr
    assert "--resume" not in done.stderr
    assert not (tmp_path / "x").exists()
