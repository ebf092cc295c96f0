"""One process at a time."""

import os
import subprocess
import sys

import pytest

from keras_iterconv._support import locking
from keras_iterconv._support.locking import LockedError, locked
from tests.support.processes import process

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
    command = [sys.executable, "-c", HOLD.format(folder=folder), str(tmp_path / "lock")]
    with process(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError), locked(tmp_path / "lock", wait=False):
            pass
        holder.kill()
        holder.wait(timeout=60)
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
    fcntl = pytest.importorskip("fcntl")
    file, real = tmp_path / "lock", fcntl.flock

    def lose_and_lock(*args):
        monkeypatch.setattr(fcntl, "flock", real)
        file.unlink()
        return real(*args)

    monkeypatch.setattr(fcntl, "flock", lose_and_lock)
    with locked(file):
        with pytest.raises(LockedError), locked(file, wait=False):
            pass
        assert file.exists()


def test_a_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_folder_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="directory"), locked(tmp_path, wait=False):
        pass
