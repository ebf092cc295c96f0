"""What the rounds of a benchmark have measured."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.harness.intervals import Ratio, speedup


@dataclass
class Measured:
    """Times of all candidates, a value for each round.

    Attributes:
        seconds: Seconds of one run by the clock, by candidate.
        processor: Seconds of the processor, the sum over its cores, by candidate.
        control: Rate of the control computation before and after each round, in FLOP/s, also of
            the rounds that were thrown away.
        load: Mean number of running processes at the start of each of these rounds.
        clock: Clock of each core in MHz, as often; empty where the system does not tell.
        thrown: Number of rounds that were thrown away, since the control moved.
        disturbed: Number of rounds that count although it moved, since too many were thrown away.
    """

    seconds: dict[str, list[float]]
    processor: dict[str, list[float]]
    control: list[tuple[float, float]] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    clock: list[list[float]] = field(default_factory=list)
    thrown: int = 0
    disturbed: int = 0

    def median(self, name: str) -> float:
        """Return the median seconds of a candidate."""
        return float(np.median(self.seconds[name]))

    def median_of_processor(self, name: str) -> float:
        """Return the median seconds of the processor."""
        return float(np.median(self.processor[name]))

    def speedup(self, baseline: str, name: str) -> Ratio:
        """Return the speed-up of a candidate over another, with its interval."""
        return speedup(self.seconds[baseline], self.seconds[name])

    def control_rate(self) -> float:
        """Return the median rate of the control computation, in FLOP/s."""
        return float(np.median(self.control))

    def rounds_facts(self) -> dict[str, Any]:
        """Return what a JSON file holds about the rounds, beside the seconds."""
        return {
            "control_flops_per_second": self.control,
            "load_average": self.load,
            "clock_megahertz": self.clock,
            "rounds_thrown_away": self.thrown,
            "rounds_disturbed": self.disturbed,
        }

    def facts(self) -> dict[str, Any]:
        """Return the times and what is known about the rounds, for a JSON file."""
        times = {"seconds": self.seconds, "processor_seconds": self.processor}
        return {**times, "rounds": self.rounds_facts()}
