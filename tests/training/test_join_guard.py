"""The process beside a worker that joins: it ends the worker when another one is gone."""

import signal
import socket
import subprocess
import sys

from tests.support.processes import process

JOINING = """
import sys, time
from training.cluster import Cluster
from training.join_guard import guarded

with guarded(Cluster(["here:1", sys.argv[1]], 0)):
    time.sleep(float(sys.argv[2]))
print("joined")
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_a_worker_ends_when_another_one_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with process([sys.executable, "-c", JOINING, address, "100"], 90, **PIPES) as worker:
        said, errors = worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    assert said == ""
    assert errors.startswith(f"Error: worker 1 ({address}) has ended or cannot be reached, and no")


def test_a_worker_whose_others_are_there_joins():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with process([sys.executable, "-c", JOINING, address, "1"], 60, **PIPES) as worker:
            said, errors = worker.communicate()
    assert (worker.returncode, said, errors) == (0, "joined\n", "")
