"""A lock that one process holds at a time, and that is released when the process ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, which is created if missing and is not removed.

    The system releases the lock of a killed process. The holder of the lock may remove the file.

    Args:
        file: Lock file. Nothing is written to it, and a link is not followed.
        wait: Whether to wait while another process holds the lock.

    Raises:
        LockedError: Another process holds the lock, and `wait` is False.
        OSError: The file cannot be created or opened.
    """
    # No soft lock, which is the existence of a file and would remain after a kill.
    lock = FileLock(file, blocking=wait, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(f"another process holds {file}") from error
    try:
        yield
    finally:
        lock.release()
