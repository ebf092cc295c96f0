"""The process beside a worker that joins: it ends the worker when another one is gone."""

import os
import signal
import socket
import subprocess
import sys

from tests.support.processes import ROOT, process

JOINING = """
import sys, time
from training.cluster import Cluster
from training.join_guard import guarded
from training.worker_watch import ATTEMPTS

SECONDS = 0.5
with guarded(Cluster(["here:1", sys.argv[1]], 0), SECONDS):
    # Long enough for a guard that reaches nobody.
    time.sleep(3 + 2 * ATTEMPTS * SECONDS)
print("joined")
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_a_worker_ends_when_another_one_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with process([sys.executable, "-c", JOINING, address], 90, **PIPES) as worker:
        said, errors = worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    assert said == ""
    assert errors.startswith(f"Error: worker 1 ({address}) has ended or cannot be reached, and no")


def test_a_worker_whose_others_are_there_joins():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with process([sys.executable, "-c", JOINING, address], 60, **PIPES) as worker:
            said, errors = worker.communicate()
    assert (worker.returncode, said, errors) == (0, "joined\n", "")


def test_ctrl_c_ends_a_worker_that_joins(tmp_path):
    """In a folder with another module `training`: the guard is not found there."""
    (tmp_path / "training.py").write_text("raise SystemExit(9)\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        # A worker that TensorFlow holds does not heed the signal itself.
        script = f"""
import signal, sys

signal.signal(signal.SIGINT, lambda *_: None)
sys.path.insert(0, {str(ROOT)!r})
{JOINING}"""
        options = {**PIPES, "cwd": tmp_path, "start_new_session": True}
        with process([sys.executable, "-c", script, address], 60, **options) as worker:
            # The guard is there when it looks for the other one.
            server.accept()[0].close()
            os.killpg(worker.pid, signal.SIGINT)
            said, errors = worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    assert (said, errors) == ("", "Interrupted.\n")
