"""A lock that one process holds at a time, and that ends with the process that holds it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

# Seconds between two tries, while another process holds the lock.
_PAUSE = 0.1


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, which is made where there is none and stays.

    A killed process leaves no lock behind: the system releases it. Who holds the lock may remove
    the file.

    Args:
        file: The file. Nothing is written to it, and a link is not followed.
        wait: Whether to wait for a process that holds the lock.

    Raises:
        LockedError: Another process holds the lock, and `wait` is False.
        OSError: The file cannot be made or opened.
    """
    while (descriptor := _try_lock(file)) is None:
        if not wait:
            raise LockedError(f"another process holds {file}")
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(file: Path) -> int | None:
    """Take the lock where nobody has it, and return the descriptor, whose closing releases it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    while True:
        descriptor = os.open(file, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # The one that held it may have removed the file, and another may hold a new one by now.
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)
