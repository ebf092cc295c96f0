"""The process of a candidate: `python -m benchmarks.harness.worker HANDLE`.

It waits for a request, answers it, and waits again; a request is a pair of the name of a method of
`Worker` and its arguments.
"""

import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.harness.candidate import build
from benchmarks.harness.devices import wait_for_device
from benchmarks.harness.process_settings import settle

# Shorter runs are repeated for so long in a turn, and their mean counts. They also get a run that
# is not timed first: the other candidates have emptied the caches.
TURN_SECONDS = 0.2


class Worker:
    """The object of a candidate, and what the benchmark asks of it."""

    def __init__(self) -> None:
        self.candidate: Any = None

    def build(self, target: str, arguments: Mapping[str, Any]) -> None:
        """Build the candidate."""
        self.candidate = build(target, arguments)

    def ask(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Return what a method of the candidate returns."""
        return getattr(self.candidate, method)(**arguments)

    def warm_up(self, call: Mapping[str, Any]) -> None:
        """Run once, so that all is traced and allocated."""
        self.candidate.run(**call)
        wait_for_device()

    def take_turn(self, call: Mapping[str, Any]) -> tuple[float, float]:
        """Return the seconds of one run, of the clock and of the processor."""
        seconds, processor = [], []
        start = time.perf_counter()
        while True:
            busy, begin = time.process_time(), time.perf_counter()
            measured = self.candidate.run(**call)
            wait_for_device()
            end = time.perf_counter()
            seconds.append(end - begin if measured is None else measured)
            processor.append(time.process_time() - busy)
            if end - start > TURN_SECONDS:
                break
        # The first of several is the untimed one.
        counted = slice(min(1, len(seconds) - 1), None)
        return _mean(seconds[counted]), _mean(processor[counted])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def serve(connection: Connection) -> None:
    """Answer requests until the benchmark closes the connection."""
    worker = Worker()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            reply = True, getattr(worker, method)(*arguments)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            reply = False, f"{type(error).__name__}: {error}"
        connection.send(reply)


if __name__ == "__main__":
    settle()
    serve(Connection(int(sys.argv[1])))
