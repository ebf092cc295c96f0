"""A lock that one process holds at a time, and that ends with the process that holds it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


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
    # The package's other kind of lock, a file that exists, would outlive a killed process.
    lock = FileLock(file, blocking=wait, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(f"another process holds {file}") from error
    try:
        yield
    finally:
        lock.release()
