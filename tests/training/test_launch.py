"""The launcher of workers: what it does with signals and with workers that fail."""

import os
import signal
import subprocess
import time

import pytest

from tests.support.processes import as_workers, process

WORKER = """
import json, os, pathlib, sys, time
number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
print("here is", number, flush=True)
pathlib.Path(sys.argv[1], str(os.getpid())).touch()
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def runs(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "statuses"),
    [
        (signal.SIGTERM, {128 + signal.SIGTERM}),
        # The interpreter ends by this signal itself.
        (signal.SIGINT, {-signal.SIGINT, 128 + signal.SIGINT}),
    ],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_ends_all_workers(tmp_path, number, statuses):
    command = as_workers(2, "-c", WORKER + "time.sleep(100)", str(tmp_path))
    with process(command, 60, **PIPES) as launcher:
        while len(list(tmp_path.iterdir())) < 2 and launcher.poll() is None:
            time.sleep(0.02)
        launcher.send_signal(number)
        launcher.communicate()
    assert launcher.returncode in statuses
    assert not [path.name for path in tmp_path.iterdir() if runs(int(path.name))]


def test_a_worker_that_fails_ends_the_others_and_gives_its_status(tmp_path):
    fails = (
        WORKER
        + """
while len(list(pathlib.Path(sys.argv[1]).iterdir())) < 2:
    time.sleep(0.02)
sys.exit(3) if number == 1 else time.sleep(100)
"""
    )
    with process(as_workers(2, "-c", fails, str(tmp_path)), 60, **PIPES) as launcher:
        said, errors = launcher.communicate()
    assert launcher.returncode == 3
    assert said == "here is 0\n"
    assert "worker 1: here is 1" in errors
    assert "Error: worker 1 ended with exit status 3; the other workers are ended" in errors
    assert not [path.name for path in tmp_path.iterdir() if runs(int(path.name))]
