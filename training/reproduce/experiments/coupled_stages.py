"""Coupled residual nets: indices and error by strength of the coupling, and by width."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ..coupled_nets import (
    COUPLED,
    STRENGTHS,
    TREND,
    WIDTHS,
    name_of,
    series_of,
    settings_of,
    widths_of,
)
from ..experiment import Claim, Experiment, Outcome, Results, Verdict
from ..residual_claims import judge_recurrence, judge_slopes
from ..residual_measures import errors, index_means, measure
from ..verdicts import FEWEST, combine, judge_sign, show

# In few steps Digitclutter-5 is not learned (1.2% after 3 epochs of 10,000 images), and a net at
# chance has no indices: hence two digits.
DATA = {
    "cpu": ("mnist", "digitclutter2"),
    "paper": ("cifar10", "digitclutter5", "mnist", "cifar100"),
}


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name."""
    return {
        name_of(dataset, width, strength): settings_of(scale, dataset, width, strength)
        for dataset in DATA[scale]
        for width in WIDTHS[scale]
        for strength in STRENGTHS
    }


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
                    found.append(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
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
            measured=partial(index_means, index="convergence"),
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
            measured=partial(index_means, index="divergence"),
            expected=-1,
            text="slope of the divergence index",
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
        "Among nets of equal size, index and error are unrelated.",
        "Lippl et al., Fig. 3c",
        "It differs if, for one data set and index, all widths have rank correlations of index and "
        "error of one sign and of at least 0.5.",
        _judge_unrelated,
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the two indices and the error against the strength, a line for each width."""
    from .strength_figure import draw_strengths

    rows = {
        dataset: {f"{width} channels": names for width, names in series.items()}
        for dataset, series in series_of(results, STRENGTHS).items()
    }
    draw_strengths(path, results, rows, STRENGTHS)


COUPLED_STAGES = Experiment(
    name="coupling",
    title="Coupled residual nets: indices and error by strength and width",
    source="Lippl et al., Fig. 3 and S1 Fig.",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 6},
    compute=measure,
    claims=CLAIMS,
    draw=draw,
    reduced="Widths 2, 4 and 8 in place of 8 to 64; 10,000 training images of MNIST, and of "
    "Digitclutter with 2 digits in place of 5, which few steps do not learn; 6 epochs; indices on "
    "1,000 test images.",
)
