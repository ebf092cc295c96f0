"""Rules of verdicts on residual nets: slopes over the strength of the coupling, RI around 1."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .experiment import Outcome, Results, Verdict
from .residual_measures import index_means, slopes
from .verdicts import FEWEST, combine, judge_not_worse, judge_sign, show

Measured = Callable[[Results, str], dict[int, float]]
SLOPES = "slopes"
# Series of conditions, such as those of rising strength, for each group that is judged alone.
Groups = Mapping[str, Sequence[Sequence[str]]]


def pooled_slopes(
    results: Results,
    series: Sequence[Sequence[str]],
    positions: Sequence[float] | np.ndarray,
    measured: Measured,
) -> np.ndarray:
    """Return the slopes of a measure over the positions, one for each series and seed."""
    found = [slopes(results, list(names), list(positions), measured) for names in series]
    return np.concatenate(found) if found else np.array([])


def judge_slopes(
    results: Results,
    groups: Groups,
    positions: Sequence[float] | np.ndarray,
    measured: Measured,
    expected: int,
    text: str,
    form: str = ".3f",
) -> Verdict:
    """Judge the sign of a measure's slope over the positions of a series, in each group on its own.

    Args:
        results: The results.
        groups: For each group, such as a data set, its series of conditions.
        positions: The positions of a series' conditions, such as the strengths of the coupling.
        measured: A function from results and condition to a measure by seed.
        expected: 1 for a rise, -1 for a fall.
        text: The name of the measure.
        form: The format of its numbers.
    """
    verdicts = []
    for group, series in groups.items():
        pooled = pooled_slopes(results, series, positions, measured)
        verdicts.append(
            judge_sign(pooled, expected, f"{group}: {text} {show(pooled, form, SLOPES)}")
        )
    return combine(verdicts)


def judge_no_rise(
    results: Results,
    groups: Groups,
    positions: Sequence[float] | np.ndarray,
    measured: Measured,
    tolerance: float,
    text: str,
) -> Verdict:
    """Judge whether a measure's slope over the positions is at most a tolerance, in each group."""
    verdicts = []
    for group, series in groups.items():
        pooled = pooled_slopes(results, series, positions, measured)
        verdicts.append(
            judge_not_worse(pooled, tolerance, f"{group}: {text} {show(pooled, '.2%', SLOPES)}")
        )
    return combine(verdicts)


def judge_near_one(values: Sequence[float] | np.ndarray, text: str) -> Verdict:
    """Judge whether the mean of some values lies within 0.1 of 1."""
    values = np.asarray(values, np.float64)
    if len(values) < FEWEST:
        return Verdict(Outcome.UNDECIDABLE, f"{text}: {len(values)} nets, 3 are needed")
    near = abs(values.mean() - 1) <= 0.1
    evidence = f"{text}: mean {values.mean():.3f}, {len(values)} nets"
    return Verdict(Outcome.AGREES if near else Outcome.DIFFERS, evidence)


def judge_recurrence(results: Results, groups: Mapping[str, Sequence[str]]) -> Verdict:
    """Judge whether the recurrence index of each group of conditions lies around 1."""
    return combine(
        [
            judge_near_one(
                [
                    value
                    for name in names
                    for value in index_means(results, name, "recurrence").values()
                ],
                group,
            )
            for group, names in groups.items()
        ]
    )
