"""The watch over the launcher and the other workers."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.support.processes import process
from training.cluster import Cluster
from training.worker_watch import watch

SHORT = 0.02


def listening():
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def free_address():
    server, address = listening()
    server.close()
    return address


@contextlib.contextmanager
def watching(*others, patience=60.0):
    """Yield the messages of a watch of worker 0: on what is lost, and on what is awaited."""
    over, lost, said = threading.Event(), [], []
    arguments = (Cluster(["here:1", *others], 0), None, over, lost.append, said.append)
    thread = threading.Thread(target=watch, args=(*arguments, SHORT, patience))
    thread.start()
    try:
        yield thread, lost, said
    finally:
        over.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_worker_that_is_gone_is_reported_once():
    (stays, one), (goes, other) = listening(), listening()
    with stays, watching(one, other) as (thread, lost, said):
        goes.accept()[0].close()  # It was reached.
        goes.close()
        thread.join(10)
        assert not thread.is_alive()
    (message,) = lost
    assert message.startswith(f"worker 2 ({other}) has ended or cannot be reached, and no worker")
    assert "--resume" in message
    assert not said


def test_a_worker_that_has_not_started_yet_is_awaited_with_a_line_again_and_again():
    (stays, one), other = listening(), free_address()
    with stays, watching(one, other, patience=0.1) as (thread, lost, said):
        deadline = time.monotonic() + 10
        while len(said) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert thread.is_alive()
    assert not lost
    assert len(said) >= 2
    expected = rf"worker 0 has waited 0 s for worker 2 \({re.escape(other)}\): start what is"
    assert re.match(expected, said[0])


def test_addresses_that_do_not_answer_are_tried_at_the_same_time(monkeypatch):
    tried, all_tried = [], threading.Event()

    def connect(address, seconds):
        tried.append(address)
        if len(tried) >= 5:
            all_tried.set()
        assert all_tried.wait(10)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    with watching(*(f"n{i}:1" for i in range(5))):
        assert all_tried.wait(10)


def test_without_others_there_is_no_watch():
    with watching() as (thread, lost, said):
        thread.join(10)
        assert not thread.is_alive()
    assert not lost
    assert not said


# A launcher with one worker, which prints the numbers of both processes and then watches.
LAUNCHER = """
import subprocess, sys
worker = "import sys; sys.path.insert(0, '.'); " + sys.argv[1]
subprocess.run([sys.executable, "-c", worker])
"""
WORKER = """
import os, sys, threading
from training.cluster import Cluster
from training.worker_watch import watch
launcher = os.getppid()
print(os.getpid(), launcher, flush=True)
watch(Cluster(["here:1"], 0), launcher, threading.Event(), print, print, 0.05)
"""


@pytest.mark.skipif(os.name != "posix", reason="a process keeps its parent")
def test_a_worker_ends_when_its_launcher_is_killed():
    command = [sys.executable, "-c", LAUNCHER, WORKER]
    with process(command, stdout=subprocess.PIPE, text=True) as launcher:
        worker, parent = map(int, launcher.stdout.readline().split())
        assert parent == launcher.pid != worker
        launcher.kill()
        launcher.wait()
        # The worker holds the pipe too, up to its end.
        assert launcher.stdout.read().startswith("the launcher has ended, and no worker can go on")
