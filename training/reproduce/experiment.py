"""The description of an experiment: what is run, what is measured, and which claims are judged."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCALES = ("cpu", "paper")


class Outcome(enum.Enum):
    """The outcome of comparing a claim of a paper with our measurements."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNDECIDABLE = "not decidable at this scale"


class Verdict(NamedTuple):
    """The outcome of a claim, and the numbers that decided it."""

    outcome: Outcome
    evidence: str


class Case(NamedTuple):
    """One thing to compute: a condition of an experiment, with one seed.

    Attributes:
        condition: The name of the condition.
        settings: What distinguishes the condition; values that JSON can represent.
        seed: The seed.
    """

    condition: str
    settings: Mapping[str, Any]
    seed: int


class Row(NamedTuple):
    """The measures of a case: numbers, lists and dicts of them, as JSON represents them."""

    condition: str
    seed: int
    measures: Mapping[str, Any]


class Results:
    """The measures of all cases that were computed, by condition.

    Args:
        rows: The rows, in any order.
    """

    def __init__(self, rows: Sequence[Row]):
        self.rows = sorted(rows, key=lambda row: row.seed)

    @property
    def conditions(self) -> list[str]:
        """The conditions with at least one row."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    def values(self, condition: str, *path: str | int) -> np.ndarray:
        """Return a measure of a condition, one value for each seed, without missing values.

        Args:
            condition: The name of the condition.
            *path: The keys and indices that lead to the measure.
        """
        found = [_follow(row.measures, path) for row in self.rows if row.condition == condition]
        return np.array([value for value in found if value is not None], np.float64)

    def by_seed(self, condition: str, *path: str | int) -> dict[int, float]:
        """Return a measure of a condition by seed, without missing values."""
        found = {
            row.seed: _follow(row.measures, path) for row in self.rows if row.condition == condition
        }
        return {seed: float(value) for seed, value in found.items() if value is not None}


def _follow(measures: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        measures = measures[key]
    return measures


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        text: The claim, in a sentence of ours.
        source: Where the paper makes it, as in "Lippl et al., Fig. 2".
        rule: The rule of the verdict, in a sentence; it is fixed before the run.
        judge: The rule as a function.
    """

    text: str
    source: str
    rule: str
    judge: Callable[[Results], Verdict]


@dataclass(frozen=True)
class Experiment:
    """An experiment of a paper.

    Attributes:
        name: The name on the command line.
        title: What it shows, in a few words.
        source: The figures and tables of the paper.
        conditions: A function from a scale to the settings of each condition, by name.
        seeds: The number of seeds for each scale, by scale.
        compute: A function from a case and the folder for its files to its measures.
        claims: The claims that it judges.
        draw: A function that draws the results to an image file.
        reduced: What the scale `"cpu"` reduces, in a sentence.
        single: A function from a scale to the settings of conditions that no seed changes, such as
            nets of the zoo; they are computed once, as seed 0.
        more_seeds: The numbers of seeds of conditions that have more than the others, at each
            scale, where a claim needs them.
    """

    name: str
    title: str
    source: str
    conditions: Callable[[str], Mapping[str, Mapping[str, Any]]]
    seeds: Mapping[str, int]
    compute: Callable[[Case, Path, Any], dict[str, Any]]
    claims: tuple[Claim, ...]
    draw: Callable[[Path, Results], None]
    reduced: str
    single: Callable[[str], Mapping[str, Mapping[str, Any]]] = lambda scale: {}
    more_seeds: Mapping[str, int] = field(default_factory=dict)

    def cases(self, scale: str, seeds: int | None = None) -> list[Case]:
        """Return the cases of a scale, seed by seed, so that early results cover all conditions.

        Args:
            scale: One of `SCALES`.
            seeds: The number of seeds of each condition; None for the experiment's own numbers.
        """
        conditions = self.conditions(scale)
        if seeds is None:
            counts = {
                name: max(self.seeds[scale], self.more_seeds.get(name, 0)) for name in conditions
            }
        else:
            counts = dict.fromkeys(conditions, seeds)
        return [
            Case(name, settings, seed)
            for seed in range(max(counts.values(), default=0))
            for name, settings in conditions.items()
            if seed < counts[name]
        ] + [Case(name, settings, 0) for name, settings in self.single(scale).items()]
