"""One process at a time."""

import subprocess
import sys

import pytest

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


def test_a_lock_is_held_by_one_and_released(tmp_path):
    with (
        locked(tmp_path / "lock"),
        pytest.raises(LockedError),
        locked(tmp_path / "lock", wait=False),
    ):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    from keras_iterconv._support import locking

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
