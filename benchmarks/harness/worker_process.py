"""The benchmark's end of a candidate's process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.process_settings import environment
from iterconv.command_errors import UserError

ROOT = Path(__file__).parents[2]
# Lines of the error output of a process that are shown where it died.
LAST_LINES = 3


class WorkerProcess:
    """A process that runs only while it has a request.

    Between its requests it is stopped by SIGSTOP: no idle pool of threads spins beside the others.

    Args:
        name: What messages call it.
        device: One of `DEVICES`.
    """

    def __init__(self, name: str, device: str):
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.harness.worker", str(theirs.fileno())],
                env=environment(device, os.fspath(ROOT)),
                pass_fds=[theirs.fileno()],
                # What libraries print is no part of the table.
                stdout=self._errors,
                stderr=self._errors,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, method: str, *arguments: Any) -> None:
        """Wake the process with a request, whose answer `receive` returns."""
        self._process.send_signal(signal.SIGCONT)
        try:
            self._connection.send((method, arguments))
        except OSError:
            raise self._death() from None

    def receive(self) -> Any:
        """Wait for the answer, and pause the process.

        Raises:
            UserError: The candidate raised an exception, or its process has ended.
        """
        try:
            done, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        self._process.send_signal(signal.SIGSTOP)
        if not done:
            raise UserError(f"the candidate {self.name!r} failed: {value}")
        return value

    def request(self, method: str, *arguments: Any) -> Any:
        """Send a request and return its answer."""
        self.send(method, *arguments)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._errors.close()

    def _death(self) -> UserError:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        last = "; its last lines: " + " | ".join(lines) if lines else ""
        return UserError(f"the process of the candidate {self.name!r} ended with {how}{last}")
