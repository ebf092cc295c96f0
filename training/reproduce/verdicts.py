"""Rules of verdicts: comparisons of measures over seeds, fixed before the runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from .experiment import Outcome, Verdict

# With fewer values a difference has no measure of chance.
FEWEST = 3
CONFIDENCE = 0.95


def show(values: Sequence[float] | np.ndarray, form: str = ".3f", noun: str = "seeds") -> str:
    """Return mean and standard deviation of some values as text.

    Args:
        values: The values.
        form: The format of the mean; the standard deviation has it without a sign.
        noun: What the values are of, in the plural.
    """
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return "no value"
    if len(values) == 1:
        return f"{values[0]:{form}} (one {noun.removesuffix('s')})"
    spread = f"{values.std(ddof=1):{form.removeprefix('+')}}"
    return f"{values.mean():{form}} ± {spread} ({len(values)} {noun})"


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of a mean, by Student's t.

    Args:
        differences: At least two values.
    """
    half = stats.sem(differences) * stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)
    return float(differences.mean() - half), float(differences.mean() + half)


def judge_sign(
    differences: np.ndarray, expected: int, evidence: str, margin: float = 0.0
) -> Verdict:
    """Judge whether a mean difference has the expected sign.

    It agrees if the 95% interval of the mean lies beyond the margin on the expected side, differs
    if it lies on the other side of the margin, and is undecidable otherwise or with fewer than
    three values.

    Args:
        differences: One difference for each seed.
        expected: 1 for larger, -1 for smaller.
        evidence: The numbers, as text; the interval is added.
        margin: The smallest difference that counts, in the units of the differences.
    """
    differences = np.asarray(differences, np.float64)
    if len(differences) < FEWEST:
        return Verdict(Outcome.UNDECIDABLE, f"{evidence}; {len(differences)} of 3 values")
    low, high = interval(differences)
    text = f"{evidence}; mean {differences.mean():+.3g} [{low:+.3g}, {high:+.3g}]"
    signed = sorted((expected * low, expected * high))
    if signed[0] > margin:
        return Verdict(Outcome.AGREES, text)
    if signed[1] < margin:
        return Verdict(Outcome.DIFFERS, text)
    return Verdict(Outcome.UNDECIDABLE, text)


def judge_not_worse(differences: np.ndarray, tolerance: float, evidence: str) -> Verdict:
    """Judge whether a mean difference is at most a tolerance.

    It agrees if the upper end of the 95% interval is at most the tolerance, differs if the lower
    end is above it, and is undecidable otherwise or with fewer than three values.

    Args:
        differences: One difference for each seed; larger is worse.
        tolerance: The largest difference that counts as no worse.
        evidence: The numbers, as text; the interval is added.
    """
    return judge_sign(differences, -1, evidence, -tolerance)


def judge_all(held: Sequence[bool], evidence: str) -> Verdict:
    """Judge a claim about single facts that do not depend on chance: one exception refutes it.

    It agrees if all facts hold, differs otherwise, and is undecidable without facts.

    Args:
        held: Whether each fact holds.
        evidence: The numbers, as text.
    """
    if not len(held):
        return Verdict(Outcome.UNDECIDABLE, "no results")
    return Verdict(Outcome.AGREES if all(held) else Outcome.DIFFERS, evidence)


def judge_share(held: Sequence[bool], evidence: str) -> Verdict:
    """Judge whether something holds for trained nets, one a seed.

    It agrees if it holds for all, differs if it holds for at most half, and is undecidable
    otherwise or with fewer than three nets.

    Args:
        held: Whether it holds for each net.
        evidence: The numbers, as text; the counts are added.
    """
    text = f"{evidence}: {sum(held)} of {len(held)} nets"
    if len(held) < FEWEST:
        return Verdict(Outcome.UNDECIDABLE, text)
    if all(held):
        return Verdict(Outcome.AGREES, text)
    few = sum(held) <= len(held) / 2
    return Verdict(Outcome.DIFFERS if few else Outcome.UNDECIDABLE, text)


def judge_less_spread(values: np.ndarray, others: np.ndarray, evidence: str) -> Verdict:
    """Judge whether values vary less than others, by the F distribution of two variances.

    It agrees if the 95% interval of the ratio of the variances lies below 1, differs if it lies
    above 1, and is undecidable otherwise or with fewer than three values on a side.

    Args:
        values: One value for each seed.
        others: The values to compare with, as many or not.
        evidence: The numbers, as text; the interval is added.
    """
    if min(len(values), len(others)) < FEWEST:
        return Verdict(Outcome.UNDECIDABLE, f"{evidence}; fewer than 3 seeds")
    variances = np.var(values, ddof=1), np.var(others, ddof=1)
    if not all(variances):
        return Verdict(Outcome.UNDECIDABLE, f"{evidence}; no variance")
    ratio = variances[0] / variances[1]
    shares = (1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2
    low, high = ratio / stats.f.ppf(shares, len(values) - 1, len(others) - 1)
    text = f"{evidence}; ratio of variances {ratio:.2g} [{low:.2g}, {high:.2g}]"
    if high < 1:
        return Verdict(Outcome.AGREES, text)
    return Verdict(Outcome.DIFFERS if low > 1 else Outcome.UNDECIDABLE, text)


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> np.ndarray:
    """Return first minus second for the seeds that both have."""
    seeds = sorted(set(first) & set(second))
    return np.array([first[seed] - second[seed] for seed in seeds])


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of a claim of several parts: it agrees only where all parts do.

    It differs where one part differs, and is undecidable without parts.
    """
    if not verdicts:
        return Verdict(Outcome.UNDECIDABLE, "no results")
    evidence = "; ".join(verdict.evidence for verdict in verdicts)
    outcomes = {verdict.outcome for verdict in verdicts}
    for outcome in (Outcome.DIFFERS, Outcome.UNDECIDABLE):
        if outcome in outcomes:
            return Verdict(outcome, evidence)
    return Verdict(Outcome.AGREES, evidence)
