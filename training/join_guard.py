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
from .worker_watch import watch


@contextlib.contextmanager
def guarded(cluster: Cluster) -> Iterator[None]:
    """End this worker with a message when another one is gone, in this context.

    Args:
        cluster: The workers, which have met.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __spec__.name, json.dumps(cluster.addresses)]
    # The pipe is closed by the end of this process too, however it ends, and then the guard ends.
    with subprocess.Popen(
        [*command, str(cluster.worker)], env=environment, stdin=subprocess.PIPE
    ) as guard:
        try:
            yield
        finally:
            guard.kill()


def main() -> None:
    """Watch the workers until this process is ended, or its parent has ended."""
    cluster = Cluster(json.loads(sys.argv[1]), int(sys.argv[2]))
    worker, over, met = os.getppid(), threading.Event(), threading.Event()
    met.set()
    threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()

    def end(message: str) -> None:
        print(f"Error: {message}", file=sys.stderr, flush=True)
        os.kill(worker, signal.SIGKILL)

    watch(cluster, None, over, met, end)


def _wait_for_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main()
