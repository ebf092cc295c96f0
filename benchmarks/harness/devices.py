"""The GPU of a benchmark: whether there is one, what it is, and waiting for it."""

import functools
import subprocess
import sys

from benchmarks.harness.process_settings import current_device
from iterconv.command_errors import UserError
from iterconv.command_start import load_quietly


def check_device(device: str) -> str:
    """Return the option `--device`.

    Raises:
        UserError: It is "gpu", and TensorFlow sees none.
    """
    if device == "gpu":
        load_quietly()
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            raise UserError(
                "--device gpu needs a GPU that TensorFlow sees, and it sees none: see whether "
                "`nvidia-smi` lists one, and install `tensorflow[and-cuda]`"
            )
    return device


@functools.cache
def gpu_names() -> list[str]:
    """Return the name and the driver of each GPU; empty without `nvidia-smi`."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def wait_for_device() -> None:
    """Wait until the GPU has done all work of this process; on a CPU nothing is left to do.

    A call returns when its work is queued. A result that is copied to the host waits for what it
    is computed from alone, and not, as the last loss of a training, for the last change of weights.
    """
    if current_device() != "gpu":
        return
    # Only one of them is in a process.
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.synchronize()
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].test.experimental.sync_devices()
