"""One process at a time."""

import subprocess
import sys
import types

import pytest

from keras_iterconv._support import locking
from keras_iterconv._support.locking import LockedError, locked

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
import locking
with locking.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def check_one_holds_it(file):
    with (
        locked(file),
        pytest.raises(LockedError),
        locked(file, wait=False),
    ):
        pass
    with locked(file, wait=False):
        pass


def test_a_lock_is_held_by_one_and_released(tmp_path):
    check_one_holds_it(tmp_path / "lock")


def test_a_killed_process_leaves_no_lock(tmp_path):
    # Loaded alone: the package would load TensorFlow.
    folder = locking.__file__.rsplit("/", 1)[0]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(folder=folder), str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
    )
    with process:
        process.stdout.readline()
        with pytest.raises(LockedError), locked(tmp_path / "lock", wait=False):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path / "lock", wait=False):
            pass


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), locked(tmp_path / "lock"):  # noqa: PT011
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_file_that_its_holder_removed_is_not_what_the_next_one_locks(tmp_path, monkeypatch):
    """It would share the lock with nobody."""
    file, real = tmp_path / "lock", locking.os.open

    def open_and_lose(path, *args):
        monkeypatch.setattr(locking.os, "open", real)
        descriptor = real(path, *args)
        file.unlink()
        return descriptor

    monkeypatch.setattr(locking.os, "open", open_and_lose)
    with locked(file, wait=False):
        with pytest.raises(LockedError), locked(file, wait=False):
            pass
        assert file.exists()


def test_windows_lock_is_held_by_one(tmp_path, monkeypatch):
    """A double of Windows's module stands in for it, with its error for a lock that is held."""

    def lock(descriptor, mode, count):
        if mode != "LK_NBLCK" or count != 1:
            pytest.fail("it would wait, or lock nothing")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error

    fcntl = locking.fcntl
    windows = types.SimpleNamespace(locking=lock, LK_NBLCK="LK_NBLCK")
    monkeypatch.setattr(locking, "fcntl", None)
    monkeypatch.setattr(locking, "msvcrt", windows, raising=False)
    check_one_holds_it(tmp_path / "lock")
