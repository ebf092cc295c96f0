"""Starts a training command and waits for its first step. It has no TensorFlow in its process."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


class FirstStep:
    """A training that ends after its first step, in a new process for each run.

    Args:
        options: Options of `training.fit`.
    """

    def __init__(self, options: Sequence[str]):
        self.options = list(options)

    def run(self) -> float:
        """Return the seconds from the start of the process to the end of the first step.

        Raises:
            RuntimeError: The training has ended before; the message has its last line.
        """
        with tempfile.TemporaryDirectory() as folder:
            moment = Path(folder) / "moment"
            command = [sys.executable, "-m", "benchmarks.first_step_probe", str(moment)]
            options = [*self.options, "--output", str(Path(folder) / "run")]
            begin = time.monotonic()
            done = subprocess.run([*command, *options], capture_output=True, text=True)
            if not moment.exists():
                last = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise RuntimeError(f"no training step: {' '.join(last)}")
            return float(moment.read_text()) - begin
