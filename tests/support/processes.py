"""Processes of their own; none of them runs, or lets a test wait, without an end."""

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 120

_FORKING = """
import importlib, json, os, sys, traceback, types
from unittest import mock

root, folder, module, function, calls = json.loads(sys.argv[1])
# Keras and the packages themselves would load TensorFlow, which takes seconds. And no process with
# its threads may fork: where a child collects an iterator of tf.data, it waits for threads that it
# lacks.
sys.modules["keras"] = mock.MagicMock()
for name in ("keras_iterconv", "keras_iterconv.zoo"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [os.path.join(root, *name.split("."))]
sys.path[:0] = [root, folder]
function = getattr(importlib.import_module(module), function)
assert "tensorflow" not in sys.modules
children = []
for arguments in calls:
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


_LAUNCHING = """
import signal, sys
from training.launch import run_workers

# A shell starts a job in the background with this signal ignored, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(run_workers(sys.argv[2:], int(sys.argv[1])))
"""


def as_workers(count, *command):
    """Return the command that runs a command of Python as several workers, by the launcher.

    Args:
        count: Number of workers.
        *command: The arguments of Python.
    """
    return [sys.executable, "-c", _LAUNCHING, str(count), sys.executable, *command]


def call_in_processes(function, calls):
    """Call a function of a test file at the same time in a process for each of `calls`.

    Args:
        function: The function. Its file must need no more of the library than modules without
            TensorFlow.
        calls: A list of arguments for each call, of the types of JSON.

    Returns:
        The exit codes: 0, 1 after an exception, or the negative number of a signal.
    """
    file = Path(function.__code__.co_filename)
    job = json.dumps([str(ROOT), str(file.parent), file.stem, function.__name__, calls])
    done = subprocess.run(
        [sys.executable, "-c", _FORKING, job], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def process(command, seconds=SECONDS, **options):
    """Start a process of `subprocess.Popen`, and kill it at the end.

    It is killed after some seconds at the latest, so that a read of its output ends.
    """
    with subprocess.Popen(command, **{"cwd": ROOT, **options}) as started:
        timer = threading.Timer(seconds, started.kill)
        timer.start()
        try:
            yield started
        finally:
            timer.cancel()
            started.kill()
