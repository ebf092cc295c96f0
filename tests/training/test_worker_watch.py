"""The watch over the launcher and the other workers."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

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
def watching(*others, met=False):
    """Yield the thread of a watch of worker 0, and its messages."""
    over, all_met, lost = threading.Event(), threading.Event(), []
    if met:
        all_met.set()
    arguments = (Cluster(["here:1", *others], 0), None, over, all_met, lost.append, SHORT)
    thread = threading.Thread(target=watch, args=arguments)
    thread.start()
    try:
        yield thread, lost
    finally:
        over.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_worker_that_is_gone_is_reported_once():
    (stays, one), (goes, other) = listening(), listening()
    with stays, watching(one, other) as (thread, lost):
        goes.accept()[0].close()  # It was reached.
        goes.close()
        thread.join(10)
        assert not thread.is_alive()
    (message,) = lost
    assert message.startswith(f"worker 2 ({other}) has ended or cannot be reached, and no worker")
    assert "--resume" in message


def test_a_worker_that_was_not_reached_yet_is_not_gone():
    with watching(free_address()) as (thread, lost):
        thread.join(0.3)
        assert thread.is_alive()
    assert not lost


def test_a_worker_that_ends_before_it_was_watched_is_gone_once_all_have_met():
    with watching(free_address(), met=True) as (thread, lost):
        thread.join(10)
        assert not thread.is_alive()
    assert "worker 1" in lost[0]


def test_without_others_there_is_no_watch():
    with watching() as (thread, lost):
        thread.join(10)
        assert not thread.is_alive()
    assert not lost


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
watch(Cluster(["here:1"], 0), launcher, threading.Event(), threading.Event(), print, 0.05)
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
