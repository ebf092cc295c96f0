"""Residual nets with a Lipschitz cap: indices and error by strength of the coupling."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..coupled_nets import COUPLED, STRENGTHS, WIDTHS, name_of, series_of, settings_of
from ..experiment import Claim, Experiment, Results, Verdict
from ..published_nets import CIFAR10_NETS, cifar10_nets, measure_net
from ..residual_claims import Measured, judge_no_rise, judge_recurrence, judge_slopes
from ..residual_measures import errors, index_means
from ..verdicts import judge_not_worse, judge_sign, paired, show

NETS = "nets"
ORDINARY, IMPROPER, PROPER = "ordinary", "ICR", "PCR"
MODELS = {ORDINARY: "resnet_w8", IMPROPER: "icr_w8", PROPER: "pcr_w8"}
# At the scale cpu the ordinary nets are those of `coupling`.
SIZES = {"cpu": ("mnist", (8,)), "paper": ("cifar10", WIDTHS["paper"])}
# The largest divergence index that counts as almost 0.
ALMOST_ZERO = 0.1
# The largest rise of the error from strength 0 to 1, as a share of images, that does not hurt.
HARMLESS = 0.005


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name."""
    dataset, widths = SIZES[scale]
    return {
        name_of(kind, width, strength): settings_of(scale, dataset, width, strength, model)
        for width in widths
        for kind, model in MODELS.items()
        for strength in STRENGTHS
    }


def _series(
    results: Results, kind: str, strengths: tuple[float | None, ...] = STRENGTHS
) -> list[list[str]]:
    """Return the conditions of a kind by strength, for each width in the results."""
    return [*series_of(results, strengths).get(kind, {}).values()]


def _conditions_of(results: Results, kind: str) -> list[str]:
    return [name for names in _series(results, kind) for name in names]


def _differences(
    results: Results,
    kind: str,
    other: str,
    measured: Measured,
    strengths: tuple[float | None, ...] = STRENGTHS,
) -> np.ndarray:
    """Return a measure of a kind less that of another, for each width, strength and seed."""
    found = [
        paired(measured(results, first), measured(results, second))
        for firsts, seconds in zip(
            _series(results, kind, strengths), _series(results, other, strengths), strict=True
        )
        for first, second in zip(firsts, seconds, strict=True)
    ]
    return np.concatenate(found) if found else np.array([])


def _of_kind(results: Results, kind: str, measured: Measured) -> np.ndarray:
    """Return a measure of all nets of a kind."""
    found = [measured(results, name).values() for name in _conditions_of(results, kind)]
    return np.array([value for values in found for value in values])


def _judge_difference(
    results: Results, kind: str, other: str, measured: Measured, form: str = ".3f"
) -> Verdict:
    text = ", ".join(
        f"{each} {show(_of_kind(results, each, measured), form, NETS)}" for each in (kind, other)
    )
    return judge_sign(_differences(results, kind, other, measured), 1, text)


def _judge_robust(results: Results, kind: str) -> Verdict:
    found = _of_kind(results, kind, partial(index_means, index="divergence"))
    return judge_not_worse(
        found, ALMOST_ZERO, f"divergence index of {kind} {show(found, noun=NETS)}"
    )


def _judge_recurrence(results: Results, kinds: tuple[str, ...]) -> Verdict:
    return judge_recurrence(results, {kind: _conditions_of(results, kind) for kind in kinds})


def _judge_slope(results: Results, kind: str, index: str, expected: int) -> Verdict:
    groups = {kind: _series(results, kind, COUPLED)}
    measured = partial(index_means, index=index)
    return judge_slopes(results, groups, COUPLED, measured, expected, f"slope of the {index} index")


def _judge_sharing(results: Results, kind: str) -> Verdict:
    groups = {kind: _series(results, kind, COUPLED)}
    return judge_no_rise(results, groups, COUPLED, errors, HARMLESS, "error per unit of coupling")


def _judge_tied(results: Results) -> Verdict:
    """Judge whether the cap costs a fully coupled net no accuracy."""
    found = _differences(results, IMPROPER, ORDINARY, errors, (1.0,))
    text = f"ICR less ordinary, coupling 1: {show(found, '.2%')}"
    return judge_not_worse(found, HARMLESS, text)


def _claims_of(kind: str, figure: str) -> tuple[Claim, ...]:
    """Return the claims that the paper makes for both kinds of capped nets."""
    return (
        Claim(
            f"{kind} have a high convergence index.",
            f"Lippl et al., {figure}",
            "The index less that of the ordinary net, one for each strength and seed, is positive: "
            "its 95% interval lies above 0.",
            partial(
                _judge_difference,
                kind=kind,
                other=ORDINARY,
                measured=partial(index_means, index="convergence"),
            ),
        ),
        Claim(
            f"{kind} have a divergence index of almost 0.",
            f"Lippl et al., {figure}",
            "The mean over all strengths and seeds is at most 0.1: the upper end of its 95% "
            "interval.",
            partial(_judge_robust, kind=kind),
        ),
        Claim(
            f"The cap raises the error of {kind} at all strengths.",
            f"Lippl et al., {figure}",
            "The error less that of the ordinary net, one for each strength and seed, is positive: "
            "its 95% interval lies above 0.",
            partial(_judge_difference, kind=kind, other=ORDINARY, measured=errors, form=".2%"),
        ),
        Claim(
            f"Sharing weights does not hurt {kind}.",
            f"Lippl et al., {figure}",
            "The slope of the test error over the strengths 0, 0.5, 0.9 and 1, one for each seed, "
            "is at most 0.5 percentage points: the upper end of its 95% interval.",
            partial(_judge_sharing, kind=kind),
        ),
    )


CLAIMS = (
    *_claims_of(IMPROPER, "Fig. 4"),
    *_claims_of(PROPER, "S2 Fig."),
    Claim(
        "The recurrence index of capped nets is centred around 1.",
        "Lippl et al., S1 Fig.",
        "The mean over all nets of a kind lies within 0.1 of 1, for ICR and for PCR.",
        partial(_judge_recurrence, kinds=(IMPROPER, PROPER)),
    ),
    Claim(
        "Coupling lowers the convergence index of ICR.",
        "Lippl et al., Fig. 4a",
        "The slope of the index over the strengths 0, 0.5, 0.9 and 1, one for each seed, is "
        "negative: its 95% interval lies below 0. The paper states it for 16 and 32 channels.",
        partial(_judge_slope, kind=IMPROPER, index="convergence", expected=-1),
    ),
    Claim(
        "Coupling raises the divergence index of ICR.",
        "Lippl et al., Fig. 4a",
        "The slope of the index over the strengths 0, 0.5, 0.9 and 1, one for each seed, is "
        "positive: its 95% interval lies above 0. The paper states it for 16 and 32 channels.",
        partial(_judge_slope, kind=IMPROPER, index="divergence", expected=1),
    ),
    Claim(
        "A fully coupled ICR errs no more than the ordinary net.",
        "Lippl et al., Fig. 4b",
        "At strength 1 the error less that of the ordinary net, one for each seed, is at most 0.5 "
        "percentage points: the upper end of its 95% interval. The paper says so for 16 channels.",
        _judge_tied,
    ),
    Claim(
        "PCR err a bit more than ICR.",
        "Lippl et al., S2 Fig.",
        "The error of PCR less that of ICR, one for each strength and seed, is positive: its 95% "
        "interval lies above 0.",
        partial(_judge_difference, kind=PROPER, other=IMPROPER, measured=errors, form=".2%"),
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the indices and the error against the strength, a line for each kind of net."""
    from .strength_figure import draw_strengths

    series = series_of(results, STRENGTHS)
    widths = sorted({width for rows in series.values() for width in rows})
    rows = {
        f"{width} channels": {kind: names[width] for kind, names in series.items()}
        for width in widths
    }
    if set(CIFAR10_NETS.values()) & set(results.conditions):
        # Single nets of the zoo without coupling: they are shown, and no verdict rests on them.
        rows["cifar10, 16 channels"] = {
            kind: [name, *[""] * (len(STRENGTHS) - 1)] for kind, name in CIFAR10_NETS.items()
        }
    draw_strengths(path, results, rows, STRENGTHS)


CAPPED_STAGES = Experiment(
    name="capped",
    title="Residual nets with a Lipschitz cap, ICR and PCR, beside ordinary ones",
    source="Lippl et al., Fig. 4, S1 and S2 Fig.",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 6},
    compute=measure_net,
    claims=CLAIMS,
    draw=draw,
    reduced="8 channels in place of 8 to 64; 10,000 training images of MNIST in place of CIFAR-10; "
    "6 epochs; indices on 1,000 test images; single CIFAR-10 nets of the zoo beside them, without "
    "a verdict.",
    single=cifar10_nets,
)
