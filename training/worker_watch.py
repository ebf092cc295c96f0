"""A watch over the launcher and the other workers, which ends this worker when one is gone."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

from .cluster import LAUNCHER, Cluster
from .worker_meeting import MET, find_reached

# A worker is gone when it was not reached this number of times. That takes 15 to 20 seconds where
# its machine refuses the connection, and at most 40 where nothing answers.
ATTEMPTS = 4
SECONDS = 5.0
ADVICE = "no worker can go on alone; start all again, with --resume and the run's folder"
LOST = f"another worker has ended or cannot be reached, and {ADVICE}"


@contextlib.contextmanager
def watched(cluster: Cluster | None) -> Iterator[None]:
    """End this process with a message when its launcher or another worker is gone, in this context.

    TensorFlow raises an error for most lost workers, but waits without an end for a chief that was
    killed, within an operation that no exception of Python can end. A launcher that is killed
    cannot end its workers.

    Args:
        cluster: The workers; None for a run of one process.
    """
    if cluster is None:
        yield
        return
    over = threading.Event()
    launcher = int(os.environ.get(LAUNCHER, 0)) or None
    arguments = (cluster, launcher, over, MET, _end)
    threading.Thread(target=watch, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def watch(
    cluster: Cluster,
    launcher: int | None,
    over: threading.Event,
    met: threading.Event,
    end: Callable[[str], None],
    seconds: float = SECONDS,
) -> None:
    """Watch the launcher and the other workers until one is gone, or the event is set.

    A worker that was not reached yet is not gone, until all have met.

    Args:
        cluster: The workers.
        launcher: The process that started this one; None for none to watch.
        over: The event that ends the watch.
        met: The event that this worker has reached all others.
        end: Function that gets the message, once, when the launcher or a worker is gone.
        seconds: Time between two attempts, and the longest time of one.
    """
    others = cluster.others()
    if not others and launcher is None:
        return
    # Times that a worker was missed since it was reached.
    missed: dict[str, int] = {}
    while not over.wait(seconds):
        if met.is_set():
            for name in others:
                missed.setdefault(name, 0)
        # The system gives the children of a process that has ended another parent.
        if launcher is not None and os.getppid() != launcher:
            end(f"the launcher has ended, and {ADVICE}")
            return
        reached = find_reached(others, seconds)
        for name in others:
            if name in reached or name in missed:
                missed[name] = 0 if name in reached else missed[name] + 1
        gone = [name for name, times in missed.items() if times >= ATTEMPTS]
        if gone and not over.is_set():
            end(f"{', '.join(gone)} has ended or cannot be reached, and {ADVICE}")
            return


def _end(message: str) -> None:
    print(f"Error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)
