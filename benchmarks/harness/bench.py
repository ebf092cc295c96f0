"""The processes of a benchmark, and their rounds."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.candidate import Candidate
from benchmarks.harness.machine import clock_megahertz, load_average
from benchmarks.harness.measured import Measured
from benchmarks.harness.process_settings import count_cores
from benchmarks.harness.worker_process import WorkerProcess

# A round counts if the control computation moved by no more; as many rounds as are wanted may be
# thrown away.
STEADY = 0.1
CONTROLS = {
    "cpu": Candidate("benchmarks.harness.control:MatrixProduct"),
    "gpu": Candidate("benchmarks.harness.gpu_control:GPUMatrixProduct"),
}


def order_of_round(names: Sequence[str], number: int) -> list[str]:
    """Return the order of the candidates in a round: a balanced design (Williams 1949).

    A candidate that always followed a heavy one would be slower. Over twice as many rounds as there
    are candidates each has each place twice, and follows each other one equally often.

    Args:
        names: The candidates.
        number: Number of rounds before.
    """
    count = len(names)
    # 0, 1, -1, 2, -2 and so on: neighbours have all distances.
    zigzag = [(-1) ** (place + 1) * ((place + 1) // 2) for place in range(count)]
    order = [names[(number + step) % count] for step in zigzag]
    return order[::-1] if number // count % 2 else order


class Bench:
    """Processes of candidates, which take turns.

    Each candidate has a process of its own, with all cores, denormal numbers flushed to zero. It
    is stopped while it waits. A control computation runs before and after each round.

    Args:
        device: "cpu" or "gpu", for the candidates and the control.
        control: The candidate whose method `rate` is the control computation; None for the matrix
            product of the device.

    Example:
        with Bench("cpu") as bench:
            measured = bench.measure({"one": one, "two": two}, rounds=5)
        print(measured.speedup("one", "two"))
    """

    def __init__(self, device: str, control: Candidate | None = None):
        self.device = device
        self.control = CONTROLS[device] if control is None else control
        self._processes: dict[bytes, WorkerProcess] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        while self._processes:
            self._processes.popitem()[1].close()

    def open(self, candidates: Mapping[str, Candidate]) -> None:
        """Start the processes of candidates that have none yet.

        Args:
            candidates: The candidates by name.
        """
        new = {}
        for name, candidate in candidates.items():
            if candidate.process_key not in self._processes:
                process = WorkerProcess(name, self.device)
                self._processes[candidate.process_key] = process
                new[process] = candidate
        _together({each: ("build", *new[each][:2]) for each in new})

    def ask(self, candidate: Candidate, method: str, **arguments: Any) -> Any:
        """Return what a method of a candidate returns; it is not timed."""
        self.open({candidate.target: candidate})
        return self._process(candidate).request("ask", method, arguments)

    def measure(self, candidates: Mapping[str, Candidate], rounds: int) -> Measured:
        """Time each candidate once in each round, in turn, after one run that is not timed.

        Args:
            candidates: The candidates by name.
            rounds: Number of rounds that count.

        Returns:
            Their times.

        Raises:
            UserError: A candidate failed, or its process died.
        """
        self.open({"control computation": self.control, **candidates})
        self._warm_up(list(candidates.values()))
        names = list(candidates)
        measured = Measured({name: [] for name in names}, {name: [] for name in names})
        before = self._control_rate()
        kept = 0
        while kept < rounds:
            measured.load.append(load_average())
            measured.clock.append(clock_megahertz())
            turns = {
                name: self._process(candidates[name]).request("take_turn", candidates[name].call)
                for name in order_of_round(names, kept)
            }
            after = self._control_rate()
            measured.control.append((before, after))
            moved, before = abs(after / before - 1) > STEADY, after
            if moved and measured.thrown < rounds:
                measured.thrown += 1
                continue
            measured.disturbed += moved
            kept += 1
            for name, (seconds, processor) in turns.items():
                measured.seconds[name].append(seconds)
                measured.processor[name].append(processor)
        if measured.disturbed:
            print(
                f"{measured.disturbed} of {rounds} rounds are disturbed: the control computation "
                f"moved by more than {STEADY:.0%} in them, and in {measured.thrown} that were "
                "thrown away",
                file=sys.stderr,
            )
        return measured

    def _process(self, candidate: Candidate) -> WorkerProcess:
        return self._processes[candidate.process_key]

    def _control_rate(self) -> float:
        return self.ask(self.control, "rate")

    def _warm_up(self, candidates: Sequence[Candidate]) -> None:
        """Run all once; candidates of different processes side by side, as tracing has one core."""
        waiting = list(candidates)
        while waiting:
            calls: dict[WorkerProcess, tuple] = {}
            for candidate in list(waiting):
                process = self._process(candidate)
                if process not in calls:
                    calls[process] = ("warm_up", candidate.call)
                    waiting.remove(candidate)
            _together(calls)


def _together(requests: Mapping[WorkerProcess, tuple]) -> None:
    """Send requests to processes, as many at a time as there are cores."""
    processes = list(requests)
    for begin in range(0, len(processes), count_cores()):
        group = processes[begin : begin + count_cores()]
        for process in group:
            process.send(*requests[process])
        for process in group:
            process.receive()
