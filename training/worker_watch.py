"""A watch over the other workers of a run, which ends this one when one of them is gone."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from .cluster import Cluster

# A worker is gone when it was not reached this number of times, which takes 15 to 35 seconds.
ATTEMPTS = 4
SECONDS = 5.0
LOST = (
    "another worker has ended or cannot be reached, and no worker can go on without it; start all "
    "workers again, with --resume and the run's folder"
)


@contextlib.contextmanager
def watched(cluster: Cluster | None) -> Iterator[None]:
    """End this process with a message when another worker is gone, in this context.

    TensorFlow raises an error for most losses, but waits without an end for a chief that was
    killed, within an operation that no exception of Python can end.

    Args:
        cluster: The workers; None for a run without others.
    """
    if cluster is None:
        yield
        return
    others = [*cluster.addresses]
    del others[cluster.worker]
    over = threading.Event()
    threading.Thread(target=watch, args=(others, over, _end), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def watch(
    addresses: Sequence[str],
    over: threading.Event,
    lost: Callable[[str], None],
    seconds: float = SECONDS,
) -> None:
    """Call a function when a worker cannot be reached any more; before the first time it may come.

    Args:
        addresses: `"HOST:PORT"` of each worker to watch.
        over: The event that ends the watch.
        lost: The function, which gets the address.
        seconds: Time between two attempts, and the longest time of one.
    """
    missed: dict[str, int] = {}
    while addresses and not over.wait(seconds):
        for address in addresses:
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), seconds).close()
                missed[address] = 0
            except OSError:
                if address in missed:
                    missed[address] += 1
            if missed.get(address) == ATTEMPTS and not over.is_set():
                lost(address)
                return


def _end(address: str) -> None:
    print(f"Error: {LOST} ({address})", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)
