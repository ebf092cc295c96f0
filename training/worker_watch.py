"""A watch over the launcher and the other workers, which ends this worker when one is gone."""

import contextlib
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .cluster import LAUNCHER, Cluster

# A worker is gone when it was not reached this number of times. That takes 15 to 20 seconds where
# its machine refuses the connection, and at most 40 where nothing answers.
ATTEMPTS = 4
SECONDS = 5.0
# Seconds between two lines about workers that have not started yet.
PATIENCE = 60.0
ADVICE = "no worker can go on alone; start all again, with --resume and the run's folder"
LOST = f"another worker has ended or cannot be reached, and {ADVICE}"


@contextlib.contextmanager
def watched(cluster: Cluster | None) -> Iterator[None]:
    """End this process with a message when its launcher or another worker is gone, in this context.

    TensorFlow raises an error for most lost workers, but waits without an end for a chief that was
    killed, and for a worker that never starts, within an operation that no exception of Python can
    end. A launcher that is killed cannot end its workers.

    Args:
        cluster: The workers; None for a run of one process.
    """
    if cluster is None:
        yield
        return
    over = threading.Event()
    launcher = int(os.environ.get(LAUNCHER, 0)) or None
    arguments = (cluster, launcher, over, _end, _say)
    threading.Thread(target=watch, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def watch(
    cluster: Cluster,
    launcher: int | None,
    over: threading.Event,
    end: Callable[[str], None],
    say: Callable[[str], None],
    seconds: float = SECONDS,
    patience: float = PATIENCE,
) -> None:
    """Watch the launcher and the other workers until one is gone, or the event is set.

    Args:
        cluster: The workers.
        launcher: The process that started this one; None for none to watch.
        over: The event that ends the watch.
        end: Function that gets the message, once, when the launcher or a worker is gone.
        say: Function that gets a line, repeatedly, on workers that were not reached yet.
        seconds: Time between two attempts, and the longest time of one.
        patience: Time between two lines.
    """
    others = {
        f"worker {number} ({address})": address
        for number, address in enumerate(cluster.addresses)
        if number != cluster.worker
    }
    if not others and launcher is None:
        return
    # Times that a worker was missed since it was reached.
    missed: dict[str, int] = {}
    begin = said = time.monotonic()
    # All at the same time: an address that does not answer takes seconds.
    with ThreadPoolExecutor(max(len(others), 1)) as pool:
        while not over.wait(seconds):
            # The system gives the children of a process that has ended another parent.
            if launcher is not None and os.getppid() != launcher:
                end(f"the launcher has ended, and {ADVICE}")
                return
            reached = pool.map(functools.partial(_is_reached, seconds=seconds), others.values())
            for name, is_reached in zip(others, reached, strict=True):
                if is_reached or name in missed:
                    missed[name] = 0 if is_reached else missed[name] + 1
            gone = [name for name, times in missed.items() if times >= ATTEMPTS]
            if gone and not over.is_set():
                end(f"{', '.join(gone)} has ended or cannot be reached, and {ADVICE}")
                return
            absent = [name for name in others if name not in missed]
            now = time.monotonic()
            if absent and now - said >= patience and not over.is_set():
                said = now
                say(
                    f"worker {cluster.worker} has waited {now - begin:.0f} s for "
                    f"{', '.join(absent)}: start what is missing, or check that its address is "
                    "right and its port open"
                )


def _is_reached(address: str, seconds: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError:
        return False
    return True


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _end(message: str) -> None:
    _say(f"Error: {message}")
    sys.stdout.flush()
    os._exit(1)
