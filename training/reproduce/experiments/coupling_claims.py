"""What Lippl et al. claim on coupled residual nets (Fig. 3 and S1 Fig.), and how it is judged."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from ..coupled_nets import COUPLED, STRENGTHS, TREND, name_of, series_of, widths_of
from ..experiment import Claim, Outcome, Results, Verdict
from ..residual_claims import Measured, judge_recurrence, judge_slopes
from ..residual_measures import errors, index_means
from ..verdicts import FEWEST, combine, judge_sign, paired, show

CONVERGENCE: Measured = partial(index_means, index="convergence")
DIVERGENCE: Measured = partial(index_means, index="divergence")


def _judge_slope(results: Results, strengths: tuple[float, ...], text: str, **rule: Any) -> Verdict:
    """Judge a slope over the strengths, for all widths of a data set together."""
    groups = {dataset: [*rows.values()] for dataset, rows in series_of(results, strengths).items()}
    return judge_slopes(results, groups, strengths, text=text, **rule)


def _judge_recurrence(results: Results) -> Verdict:
    groups = {
        dataset: [name for names in rows.values() for name in names]
        for dataset, rows in series_of(results, STRENGTHS).items()
    }
    return judge_recurrence(results, groups)


def _judge_interaction(results: Results) -> Verdict:
    """Judge whether the rise of the error from 0 to 0.9 is smaller at the largest width."""
    verdicts = []
    for dataset, widths in widths_of(results).items():
        rises = []
        for width in (widths[0], widths[-1]):
            before, after = (
                errors(results, name_of(dataset, width, strength)) for strength in (0.0, 0.9)
            )
            seeds = sorted(set(before) & set(after))
            rises.append({seed: after[seed] - before[seed] for seed in seeds})
        seeds = sorted(set(rises[0]) & set(rises[1]))
        differences = np.array([rises[1][seed] - rises[0][seed] for seed in seeds])
        text = f"{dataset}: rise at width {widths[-1]} less that at {widths[0]}"
        verdicts.append(judge_sign(differences, -1, text))
    return combine(verdicts)


def _judge_width(results: Results, text: str, **rule: Any) -> Verdict:
    """Judge a slope over the doublings of the width, for all strengths of a data set together."""
    verdicts = []
    for dataset, widths in widths_of(results).items():
        if len(widths) < 2:
            return Verdict(Outcome.UNDECIDABLE, f"{dataset}: {len(widths)} width, 2 are needed")
        series = [[name_of(dataset, width, strength) for width in widths] for strength in STRENGTHS]
        groups = {dataset: series}
        verdicts.append(judge_slopes(results, groups, np.log2(widths), text=text, **rule))
    return combine(verdicts)


def _judge_tied(results: Results) -> Verdict:
    """Judge whether the convergence index falls from strength 0.9 to 1."""
    verdicts = []
    for dataset, widths in widths_of(results).items():
        differences = [
            paired(*(CONVERGENCE(results, name_of(dataset, width, s)) for s in (1.0, 0.9)))
            for width in widths
        ]
        text = f"{dataset}: convergence index at 1 less that at 0.9"
        verdicts.append(judge_sign(np.concatenate(differences), -1, text))
    return combine(verdicts)


def _judge_related(results: Results, measured: Measured, expected: int, text: str) -> Verdict:
    """Judge the rank correlation of index and error over all nets of a data set and seed."""
    verdicts = []
    for dataset, rows in series_of(results, STRENGTHS).items():
        names = [name for of_width in rows.values() for name in of_width]
        pairs: dict[int, list[tuple[float, float]]] = {}
        for name in names:
            error = errors(results, name)
            for seed, value in measured(results, name).items():
                pairs.setdefault(seed, []).append((value, error[seed]))
        found = [_rank_correlation(of_seed) for of_seed in pairs.values() if len(of_seed) > FEWEST]
        text_of = f"{dataset}: rank correlation of {text} and error {show(found, '+.2f')}"
        verdicts.append(judge_sign(np.array(found), expected, text_of))
    return combine(verdicts)


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def _judge_unrelated(results: Results) -> Verdict:
    """Judge the rank correlation of index and error among nets of equal size."""
    texts, related = [], False
    for dataset, widths in widths_of(results).items():
        for index in ("convergence", "divergence"):
            found = []
            for width in widths:
                names = [name_of(dataset, width, strength) for strength in STRENGTHS]
                pairs = [
                    (value, errors(results, name)[seed])
                    for name in names
                    for seed, value in index_means(results, name, index).items()
                ]
                if len(pairs) > FEWEST:
                    found.append(_rank_correlation(pairs))
            if len(found) < FEWEST:
                return Verdict(Outcome.UNDECIDABLE, "too few nets")
            texts.append(f"{dataset}, {index} index: rank correlations {show(found, '+.2f')}")
            related |= bool(min(np.abs(found)) > 0.5 and len(set(np.sign(found))) == 1)
    if not texts:
        return Verdict(Outcome.UNDECIDABLE, "no results")
    return Verdict(Outcome.DIFFERS if related else Outcome.AGREES, "; ".join(texts))


CLAIMS = (
    Claim(
        "Coupling raises the convergence index.",
        "Lippl et al., Fig. 3a",
        "The slope of the index over the strengths 0, 0.5 and 0.9, one for each width and seed, is "
        "positive: its 95% interval lies above 0, on every data set.",
        partial(
            _judge_slope,
            strengths=TREND,
            measured=CONVERGENCE,
            expected=1,
            text="slope of the convergence index",
        ),
    ),
    Claim(
        "Coupling lowers the divergence index.",
        "Lippl et al., Fig. 3a",
        "The slope of the index over the strengths 0, 0.5 and 0.9, one for each width and seed, is "
        "negative: its 95% interval lies below 0, on every data set.",
        partial(
            _judge_slope,
            strengths=TREND,
            measured=DIVERGENCE,
            expected=-1,
            text="slope of the divergence index",
        ),
    ),
    Claim(
        "In fully coupled nets the convergence index does not go on rising.",
        "Lippl et al., Fig. 3a",
        "The index at strength 1 less that at 0.9, one for each width and seed, is negative: its "
        "95% interval lies below 0, on every data set.",
        _judge_tied,
    ),
    Claim(
        "Wider nets have a higher convergence index.",
        "Lippl et al., Fig. 3a",
        "The slope of the index over the doublings of the width, one for each strength and seed, "
        "is positive: its 95% interval lies above 0, on every data set.",
        partial(
            _judge_width, measured=CONVERGENCE, expected=1, text="convergence index per doubling"
        ),
    ),
    Claim(
        "Wider nets have a lower divergence index.",
        "Lippl et al., Fig. 3a",
        "The slope of the index over the doublings of the width, one for each strength and seed, "
        "is negative: its 95% interval lies below 0, on every data set.",
        partial(
            _judge_width, measured=DIVERGENCE, expected=-1, text="divergence index per doubling"
        ),
    ),
    Claim(
        "The recurrence index is centred around 1.",
        "Lippl et al., S1 Fig.",
        "The mean over all nets of a data set lies within 0.1 of 1, on every data set.",
        _judge_recurrence,
    ),
    Claim(
        "A stronger coupling leads to a higher error.",
        "Lippl et al., Fig. 3b",
        "The slope of the test error over the strengths 0, 0.5, 0.9 and 1, one for each width and "
        "seed, is positive: its 95% interval lies above 0, on every data set.",
        partial(
            _judge_slope,
            strengths=COUPLED,
            measured=errors,
            expected=1,
            text="error per unit of coupling",
            form=".2%",
        ),
    ),
    Claim(
        "At a coupling of 0.9 the error rises less in wide nets.",
        "Lippl et al., Fig. 3b",
        "The rise of the error from strength 0 to 0.9 is smaller at the largest width than at the "
        "smallest: the 95% interval of the difference, one for each seed, lies below 0.",
        _judge_interaction,
    ),
    Claim(
        "Among nets of all widths, a higher convergence index goes with a lower error.",
        "Lippl et al., Fig. 3c",
        "The rank correlation over all widths and strengths, one for each seed, is negative: its "
        "95% interval lies below 0, on every data set.",
        partial(_judge_related, measured=CONVERGENCE, expected=-1, text="convergence index"),
    ),
    Claim(
        "Among nets of all widths, a lower divergence index goes with a lower error.",
        "Lippl et al., Fig. 3c",
        "The rank correlation over all widths and strengths, one for each seed, is positive: its "
        "95% interval lies above 0, on every data set.",
        partial(_judge_related, measured=DIVERGENCE, expected=1, text="divergence index"),
    ),
    Claim(
        "Among nets of equal size, index and error are unrelated.",
        "Lippl et al., Fig. 3c",
        "It differs if, for one data set and index, all widths have rank correlations of index and "
        "error of one sign and of at least 0.5.",
        _judge_unrelated,
    ),
)
