"""What the results of the experiments say: each claim judged, and where the numbers come from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from iterconv.command_errors import UserError

from .experiment import Claim, Experiment, Outcome, Results, Verdict
from .runner import read_lines, to_results

PENDING = "no results yet"
OUTCOMES = (*(outcome.value for outcome in Outcome), PENDING)
# What a rule or a figure raises where a condition that it needs has no result.
INCOMPLETE = (ArithmeticError, LookupError, ValueError)


class JudgedClaim(NamedTuple):
    """A claim with its outcome, one of `OUTCOMES`, and the numbers that decided it."""

    claim: Claim
    outcome: str
    evidence: str


@dataclass(frozen=True)
class Finding:
    """An experiment with its results.

    Attributes:
        experiment: The experiment.
        scale: One of `SCALES`.
        lines: The lines of its results, as `runner.read_lines` returns them.
        claims: Its claims, judged.
    """

    experiment: Experiment
    scale: str
    lines: Sequence[dict[str, Any]]
    claims: Sequence[JudgedClaim]

    @property
    def results(self) -> Results:
        """The measures of the lines."""
        return to_results(self.lines)

    @property
    def seeds(self) -> str:
        """The number of seeds of each condition with results, as text, such as "3 to 6 seeds"."""
        single = self.experiment.single(self.scale)
        counts = Counter(
            line["condition"] for line in self.lines if line["condition"] not in single
        ).values()
        if not counts:
            return "deterministic"
        fewest, most = min(counts), max(counts)
        if most == 1:
            return "one seed"
        return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"

    @property
    def missing(self) -> int:
        """The number of cases that the command has and that have no result."""
        found = {(line["condition"], line["seed"]) for line in self.lines}
        cases = self.experiment.cases(self.scale, self._given_seeds)
        return sum((case.condition, case.seed) not in found for case in cases)

    @property
    def _given_seeds(self) -> int | None:
        """The argument `--seeds` by which these results can be had; None for none."""
        seeds = 1 + max((line["seed"] for line in self.lines), default=0)
        planned = 1 + max((case.seed for case in self.experiment.cases(self.scale)), default=0)
        return None if seeds == planned else seeds

    @property
    def duration(self) -> str:
        """The time that the cases took, as text."""
        minutes = round(sum(line["seconds"] for line in self.lines) / 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min" if minutes else "less than a minute"

    @property
    def command(self) -> str:
        """The command that makes these results."""
        command = self.command_at(self.scale)
        if not self.lines or self._given_seeds is None:
            return command
        return f"{command} --seeds {self._given_seeds}"

    @property
    def full_command(self) -> str:
        """The command that runs the experiment as the paper did."""
        return self.command_at("paper")

    def command_at(self, scale: str) -> str:
        """Return the command that runs the experiment at a scale."""
        return f"python -m training.reproduce run {self.experiment.name} --scale {scale}"

    @property
    def datasets(self) -> list[str]:
        """The data sets that the conditions name, in their order."""
        settings = self.experiment.conditions(self.scale).values()
        return list(dict.fromkeys(each["dataset"] for each in settings if "dataset" in each))


def find(experiment: Experiment, folder: Path, scale: str) -> Finding:
    """Return what the results of an experiment say.

    Args:
        experiment: The experiment.
        folder: The folder of all experiments of the scale.
        scale: One of `SCALES`.

    Raises:
        UserError: The file of results is damaged.
    """
    lines = read_lines(experiment, folder, scale)
    finding = Finding(experiment, scale, lines, ())
    claims = [_judge(claim, finding) for claim in experiment.claims]
    return Finding(experiment, scale, lines, claims)


def find_all(experiments: Sequence[Experiment], folder: Path, scale: str) -> list[Finding]:
    """Return what the results of all experiments say; those without results are included.

    Raises:
        UserError: There is no result of any, or a file of results is damaged.
    """
    findings = [find(experiment, folder, scale) for experiment in experiments]
    if not any(finding.lines for finding in findings):
        raise UserError(
            f"{folder} holds no results; `python -m training.reproduce run NAME` makes them"
        )
    return findings


def count_outcomes(findings: Sequence[Finding]) -> dict[str, int]:
    """Return the number of claims of each outcome."""
    counts = Counter(claim.outcome for finding in findings for claim in finding.claims)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _judge(claim: Claim, finding: Finding) -> JudgedClaim:
    if not finding.lines:
        return JudgedClaim(claim, PENDING, "")
    try:
        verdict = claim.judge(finding.results)
    except INCOMPLETE:
        # With all results there, an error is one of the rule.
        if not finding.missing:
            raise
        verdict = Verdict(Outcome.UNDECIDABLE, "results that the rule needs are missing")
    return JudgedClaim(claim, verdict.outcome.value, verdict.evidence)
