"""Ratios round by round, and their bootstrap interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SAMPLES = 10_000
CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """A speed-up: the median over the rounds, and the ends of its interval.

    Attributes:
        median: Median of the ratios of each round.
        low: Lower end of the 95% interval.
        high: Upper end.
    """

    median: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """The interval as a text."""
        return f"{self.low:.2f} to {self.high:.2f}"


def speedup(baseline: Sequence[float], seconds: Sequence[float]) -> Ratio:
    """Return the speed-up of the second over the first.

    Ratios are taken within a round, since throughput varies less within a round. The interval is
    the percentile bootstrap of their median.

    Args:
        baseline: Seconds of the baseline, one for each round.
        seconds: Seconds of the other candidate in the same rounds.
    """
    ratios = np.array(baseline) / np.array(seconds)
    drawn = np.random.default_rng(0).choice(ratios, (SAMPLES, len(ratios)))
    rest = (1 - CONFIDENCE) / 2
    ends = np.quantile(np.median(drawn, axis=1), (rest, 1 - rest))
    return Ratio(float(np.median(ratios)), *map(float, ends))
