"""The start of several workers: each waits until the others have started."""

import contextlib
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from iterconv.command_errors import UserError

from .cluster import Cluster

# Seconds between two attempts, of one attempt, and between two lines about missing workers.
PAUSE = 1.0
SECONDS = 5.0
PATIENCE = 60.0
# Whether this process, which is one worker, has met all others.
MET = threading.Event()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def meet(
    cluster: Cluster,
    say: Callable[[str], None] = _say,
    pause: float = PAUSE,
    patience: float = PATIENCE,
) -> None:
    """Return when each other worker was reached, which then goes on to reach this one.

    TensorFlow waits for missing workers too, but holds Python's lock meanwhile, so that no thread
    could say who is missing, and no signal would end the process.

    Args:
        cluster: The workers.
        say: Function that gets a line, repeatedly, on workers that are missing.
        pause: Seconds between two attempts.
        patience: Seconds between two lines.

    Raises:
        UserError: This worker cannot listen at its address.
    """
    missing = cluster.others()
    begin = said = time.monotonic()
    # Those who have not reached this worker when it closes its port reach TensorFlow's server,
    # which opens next.
    with _listening(cluster.addresses[cluster.worker]) as answer:
        while missing:
            for name in find_reached(missing):
                del missing[name]
            answer()
            now = time.monotonic()
            if missing and now - said >= patience:
                said = now
                say(
                    f"worker {cluster.worker} has waited {now - begin:.0f} s for "
                    f"{', '.join(missing)}: start what is missing, or check that its address is "
                    "right and its port open"
                )
            if missing:
                time.sleep(pause)
    MET.set()


def find_reached(addresses: Mapping[str, str], seconds: float = SECONDS) -> Collection[str]:
    """Return the names of the addresses that accept a connection.

    Args:
        addresses: `"HOST:PORT"` by name.
        seconds: Longest time to wait for one; all are tried at the same time.
    """
    if not addresses:
        return ()
    with ThreadPoolExecutor(len(addresses)) as pool:
        reached = pool.map(functools.partial(_is_reached, seconds=seconds), addresses.values())
        return [name for name, yes in zip(addresses, reached, strict=True) if yes]


def _is_reached(address: str, seconds: float) -> bool:
    host, port = _split(address)
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError:
        return False
    return True


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _listening(address: str) -> Iterator[Callable[[], None]]:
    """Listen at the port of an address as TensorFlow will; yield what takes the connections."""
    both = socket.has_dualstack_ipv6()
    try:
        server = socket.create_server(
            ("", _split(address)[1]),
            family=socket.AF_INET6 if both else socket.AF_INET,
            backlog=socket.SOMAXCONN,
            # The launcher holds the port for its worker.
            reuse_port=os.environ.get("TF_GRPC_REUSE_PORT") == "true",
            dualstack_ipv6=both,
        )
    except OSError as error:
        raise cannot_listen(address, error.strerror) from error
    server.setblocking(False)

    def answer() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                server.accept()[0].close()

    with server:
        yield answer


def cannot_listen(address: str, reason: str | None) -> UserError:
    """Return the error of a worker that cannot listen at its address."""
    return UserError(
        f"this worker cannot listen at {address} ({reason}): another program may use the port; "
        "choose another one in TF_CONFIG of all workers"
    )
