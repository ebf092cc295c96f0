"""A process beside a worker that joins the others: it ends the worker when another one has ended.

TensorFlow waits without an end for a worker that ends between the meeting of all and their joining,
and holds Python's lock, so that no thread of the worker itself could end it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from .cluster import Cluster
from .worker_meeting import PATIENCE
from .worker_watch import watch

# Seconds between two attempts to reach another worker. Longer than while training: before its
# server opens, a worker may have to start its GPUs.
SECONDS = 7.0


@contextlib.contextmanager
def guarded(cluster: Cluster, seconds: float = SECONDS) -> Iterator[None]:
    """End this worker with a message when another one is gone, or at Ctrl-C, in this context.

    Args:
        cluster: The workers, which have met.
        seconds: Time between two attempts to reach another one.
    """
    # What this process imports, and no other module of this name in the current folder (`-P`).
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    arguments = [json.dumps(cluster.addresses), str(cluster.worker), str(seconds)]
    # The pipe is closed by the end of this process too, however it ends, and then the guard ends.
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __spec__.name, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
    ) as guard:
        try:
            yield
        finally:
            guard.kill()


def main() -> None:
    """Watch the workers until this process is ended, or its parent has ended."""
    cluster, seconds = Cluster(json.loads(sys.argv[1]), int(sys.argv[2])), float(sys.argv[3])
    worker, over, met = os.getppid(), threading.Event(), threading.Event()
    met.set()
    threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()
    threading.Thread(target=_remind, args=(cluster.worker, over), daemon=True).start()

    def end(message: str) -> None:
        print(message, file=sys.stderr, flush=True)
        os.kill(worker, signal.SIGKILL)

    try:
        watch(cluster, None, over, met, lambda message: end(f"Error: {message}"), seconds)
    except KeyboardInterrupt:
        end("Interrupted.")


def _wait_for_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _remind(worker: int, over: threading.Event) -> None:
    waited = 0.0
    while not over.wait(PATIENCE):
        waited += PATIENCE
        print(
            f"worker {worker} has reached all others and waits {waited:.0f} s for them to join: "
            "each worker must reach each other one; see what the others print",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
