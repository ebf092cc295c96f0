"""Two workers: equal to one process, one that is killed, and going on with another number."""

import signal
import subprocess

from rich.console import Console

from tests.support import killed_worker, worker_net
from tests.support.processes import as_workers, process
from training import session
from training.settings import make_settings

# Seconds for two workers, which take a fifth of it on two idle cores: other tests run beside them.
LIMIT = 240


def run(command):
    """Run a command to its end; return its exit status and its errors."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with process(command, LIMIT, **output) as started:
        _, errors = started.communicate()  # `process` ends what takes too long.
    return started.returncode, errors


def test_two_workers_compute_as_one_process(tmp_path):
    """In float64, on batches of 5 and 4 images, and a last one that leaves a worker without."""
    status, errors = run(worker_net.command_of("small", tmp_path / "net", 2))
    assert status == 0, errors
    worker_net.train_all("small", tmp_path / "net")
    compared = worker_net.compare("small", tmp_path / "net", 2)
    assert [row.net for row in compared] == ["nais_adaptive", "resnet_w8"]
    assert all(row.holds for row in compared), compared


def test_a_killed_worker_ends_all_and_one_goes_on(tmp_path):
    moment, folder = "at a checkpoint within it", tmp_path / "run"
    status, errors = run(as_workers(2, "-m", killed_worker.MODULE, moment, str(folder)))
    assert status == 128 + signal.SIGKILL, errors
    assert "Error: worker 0 was killed by signal 9; the other workers are ended" in errors
    settings = make_settings(**killed_worker.OPTIONS)
    session.start(settings, str(tmp_path / "alone"), Console(quiet=True))
    killed_worker.resume(moment, folder, killed_worker.history(tmp_path / "alone"))


def test_a_refused_setting_ends_the_workers(tmp_path):
    options = ["--model", "nais_mnist", "--threshold", "-1", "--output", str(tmp_path / "x")]
    status, errors = run(killed_worker.launched(1, *options))
    assert status == 2, errors
    assert "Error: --threshold must lie in" in errors
    assert "--resume" not in errors
    assert not (tmp_path / "x").exists()
