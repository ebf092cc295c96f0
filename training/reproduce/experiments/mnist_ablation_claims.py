"""The claims of NAIS-Net, 5.1, about its nets on MNIST, and the rules of their verdicts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..experiment import Claim, Results, Verdict
from ..verdicts import (
    combine,
    judge_less_spread,
    judge_not_worse,
    judge_share,
    judge_sign,
    paired,
    show,
)

NAIS, STABLE = "NAIS-Net", "ResNet-SH-Stable"
# The names of the paper, and the architectures of this package.
MODELS = {
    NAIS: "nais_dense",
    "ResNet": "resnet",
    "ResNet-SH": "resnet_sh",
    "ResNet-NA": "resnet_na",
    "ResNet-BN": "resnet_bn",
    "ResNet-SH-NA": "resnet_sh_na",
    "ResNet-SH-BN": "resnet_sh_bn",
    "ResNet-NA-BN": "resnet_na_bn",
    "ResNet-SH-NA-BN": "resnet_sh_na_bn",
    STABLE: "resnet_sh_stable",
}
ACTIVATIONS = ("relu", "tanh")
PUBLISHED = {NAIS: 0.9728, "ResNet-SH-BN": 0.9669, "ResNet-SH": 0.9586}
# Each net without batch normalisation that has a counterpart with it.
WITHOUT_BN = ("ResNet", "ResNet-SH", "ResNet-NA", "ResNet-SH-NA")
# The number of updates after which a stable block counts as settled. Its slowest direction shrinks
# by the factor 1 - h shift = 0.999 in an update where all slopes are 1.
LONG = 10_000
# The largest rise of a mean loss that is rounding, in nats.
ROUNDING = 1e-5


def condition_of(name: str, activation: str) -> str:
    """Return the name of a condition."""
    return f"{name}, {activation}"


def _errors(results: Results, name: str, activation: str) -> dict[int, float]:
    return results.by_seed(condition_of(name, activation), "error")


def _accuracies(results: Results, name: str, activation: str = "relu") -> np.ndarray:
    return 1 - np.array(list(_errors(results, name, activation).values()))


def losses(results: Results, name: str, activation: str) -> list[np.ndarray]:
    """Return the losses by depth of a condition, `[31]` for each seed that has a trained net."""
    rows = [r for r in results.rows if r.condition == condition_of(name, activation)]
    found = [np.array(row.measures["losses"], float) for row in rows]
    return [curve for curve in found if np.isfinite(curve[-1])]


def _long(results: Results, name: str, activation: str, key: str) -> list[Any]:
    rows = [r for r in results.rows if r.condition == condition_of(name, activation)]
    return [r.measures["long"][key] for r in rows if r.measures["long"] is not None]


def monotone(curve: np.ndarray) -> bool:
    """Return whether a loss rises at no depth by more than rounding."""
    return bool(np.all(np.diff(curve) <= ROUNDING))


def progress(curve: np.ndarray) -> np.ndarray:
    """Return a loss by depth, scaled to 1 at depth 0 and 0 at its smallest value."""
    low = np.nanmin(curve)
    return (curve - low) / (curve[0] - low) if curve[0] > low else np.zeros_like(curve)


def _judge_published(results: Results) -> Verdict:
    accuracies = _accuracies(results, NAIS)
    text = f"{NAIS}, ReLU: {show(accuracies, '.2%')}; published {PUBLISHED[NAIS]:.2%}"
    off = accuracies - PUBLISHED[NAIS]
    return combine(
        [judge_not_worse(off, 0.005, text), judge_not_worse(-off, 0.005, "published less ours")]
    )


def _judge_better(results: Results, name: str, others: Sequence[str]) -> Verdict:
    """Judge whether a net has a smaller error than each of some others, with ReLU."""
    errors = _errors(results, name, "relu")
    verdicts = [
        judge_sign(paired(_errors(results, other, "relu"), errors), 1, f"{other} less {name}")
        for other in others
    ]
    verdict = combine(verdicts)
    return verdict._replace(evidence=f"{_order(results)}; {verdict.evidence}")


def _order(results: Results) -> str:
    """Return the mean accuracies with ReLU of all nets, from the best to the worst."""
    means = {name: values.mean() for name in MODELS if len(values := _accuracies(results, name))}
    ordered = sorted(means, key=means.__getitem__, reverse=True)
    return ", ".join(f"{name} {means[name]:.2%}" for name in ordered)


def _judge_no_learning(results: Results) -> Verdict:
    return combine(
        [
            judge_sign(
                (values := _accuracies(results, STABLE, activation)) - 0.92,
                -1,
                f"{STABLE}, {activation}: {show(values, '.2%')}, less 92%",
            )
            for activation in ACTIVATIONS
        ]
    )


def _judge_refinement(results: Results) -> Verdict:
    verdicts = []
    for name in MODELS:
        curves = [c for activation in ACTIVATIONS for c in losses(results, name, activation)]
        verdicts.append(judge_share([curve[5] < curve[0] for curve in curves], name))
    return combine(verdicts)


def _judge_monotone(results: Results) -> Verdict:
    return combine(
        [
            judge_share(list(map(monotone, losses(results, NAIS, activation))), activation)
            for activation in ACTIVATIONS
        ]
    )


def _judge_alone(results: Results) -> Verdict:
    verdicts = []
    for name, activation in ((n, a) for n in MODELS if n != NAIS for a in ACTIVATIONS):
        rising = [not monotone(curve) for curve in losses(results, name, activation)]
        verdicts.append(judge_share(rising, f"rises: {name}, {activation}"))
    return combine(verdicts)


def _judge_different_states(results: Results) -> Verdict:
    verdicts = []
    for activation in ACTIVATIONS:
        spreads, motions = (_long(results, NAIS, activation, key) for key in ("spread", "motion"))
        held = [
            spread is not None and spread >= 0.1 and motion <= 1e-3
            for spread, motion in zip(spreads, motions, strict=True)
        ]
        known = [spread for spread in spreads if spread is not None]
        verdicts.append(judge_share(held, f"{activation}: spread {show(known, '.2f')}"))
    return combine(verdicts)


def _judge_zero(results: Results) -> Verdict:
    verdicts = []
    for activation in ACTIVATIONS:
        first, last = (
            results.values(condition_of(STABLE, activation), "norms", depth) for depth in (0, -1)
        )
        later = _long(results, STABLE, activation, "norm")
        text = (
            f"{activation}: norm {show(first, '.2f')} at first, {show(last, '.2f')} after 30 "
            f"updates, {show(later, '.2f')} after {LONG:,}"
        )
        verdicts.append(judge_share(list(last < 0.05 * first), text))
    return combine(verdicts)


def _judge_times(results: Results) -> Verdict:
    verdicts = []
    for activation in ACTIVATIONS:
        found = _long(results, NAIS, activation, "settled")
        held = [late >= 1.5 * early for early, late in found]
        text = ", ".join(f"{early:.0f} to {late:.0f}" for early, late in found)
        verdicts.append(judge_share(held, f"{activation}: updates {text or 'unknown'}"))
    return combine(verdicts)


def _areas(results: Results, name: str, activation: str) -> dict[int, float]:
    """Return the mean progress of the loss over depth by seed: small where it falls early."""
    condition = condition_of(name, activation)
    rows = [row for row in results.rows if row.condition == condition]
    curves = {row.seed: np.array(row.measures["losses"], float) for row in rows}
    return {s: float(progress(c).mean()) for s, c in curves.items() if np.isfinite(c).all()}


def _judge_batch_norm(results: Results, names: Sequence[str]) -> Verdict:
    """Judge whether the loss falls earlier over depth with batch normalisation."""
    return combine(
        [
            judge_sign(
                paired(
                    _areas(results, f"{name}-BN", activation), _areas(results, name, activation)
                ),
                -1,
                f"{name}-BN less {name}, {activation}",
            )
            for name in names
            for activation in ACTIVATIONS
        ]
    )


def _judge_similar(results: Results) -> Verdict:
    verdicts = []
    for activation in ACTIVATIONS:
        ours, theirs = (
            [progress(curve) for curve in losses(results, name, activation)]
            for name in (NAIS, "ResNet-SH-NA-BN")
        )
        pairs = zip(ours, theirs, strict=False)
        gaps = np.array([np.abs(first - second).mean() for first, second in pairs])
        verdicts.append(judge_not_worse(gaps, 0.1, f"{activation}: distance {show(gaps)}"))
    return combine(verdicts)


def _judge_without_normalisation(results: Results) -> Verdict:
    verdicts = []
    for activation in ACTIVATIONS:
        diverged = {
            name: results.values(condition_of(name, activation), "diverged") for name in MODELS
        }
        others = [f"{name} {int(d.sum())} of {len(d)}" for name, d in diverged.items() if d.any()]
        text = f"{activation}: diverged {', '.join(others) or 'none'}; {NAIS} trains"
        verdicts.append(judge_share(list(diverged[NAIS] == 0), text))
    return combine(verdicts)


def _judge_variance(results: Results) -> Verdict:
    found = {name: _accuracies(results, name) for name in (NAIS, "ResNet-SH", "ResNet-SH-BN")}
    return combine(
        [
            judge_less_spread(
                found[NAIS],
                found[other],
                f"{NAIS} {show(found[NAIS], '.2%')}, {other} {show(found[other], '.2%')}",
            )
            for other in ("ResNet-SH", "ResNet-SH-BN")
        ]
    )


_OTHERS = tuple(name for name in MODELS if name != NAIS)
CLAIMS = (
    Claim(
        "NAIS-Net classifies 97.28% of the test images right.",
        "NAIS-Net, 5.1",
        "The 95% interval of the mean accuracy with ReLU lies within 0.5 points of 97.28%.",
        _judge_published,
    ),
    Claim(
        "NAIS-Net is the most accurate of the ten nets.",
        "NAIS-Net, 5.1",
        "With ReLU the error of each of the nine others less that of NAIS-Net is positive: the 95% "
        "interval of each difference, paired by seed, lies above 0.",
        partial(_judge_better, name=NAIS, others=_OTHERS),
    ),
    Claim(
        "ResNet-SH-BN is the second most accurate of the ten nets.",
        "NAIS-Net, 5.1",
        "With ReLU the error of each of the eight other ResNets less that of ResNet-SH-BN is "
        "positive: the 95% interval of each difference, paired by seed, lies above 0.",
        partial(
            _judge_better,
            name="ResNet-SH-BN",
            others=tuple(name for name in _OTHERS if name != "ResNet-SH-BN"),
        ),
    ),
    Claim(
        "With shared weights, batch normalisation raises the accuracy of the ResNet.",
        "NAIS-Net, 5.1",
        "With ReLU the error of ResNet-SH less that of ResNet-SH-BN is positive: the 95% interval "
        "of the difference, paired by seed, lies above 0.",
        partial(_judge_better, name="ResNet-SH-BN", others=("ResNet-SH",)),
    ),
    Claim(
        "NAIS-Net trains without normalisation of its states.",
        "NAIS-Net, 5.1",
        "No training of NAIS-Net diverges at the paper's learning rate, with neither activation: "
        "its loss stays finite and is below that of chance in the last epoch.",
        _judge_without_normalisation,
    ),
    Claim(
        "The accuracy of NAIS-Net varies less from training to training.",
        "NAIS-Net, 5.2 (there of CIFAR)",
        "The variance of its accuracy with ReLU over ten seeds is smaller than those of ResNet-SH "
        "and ResNet-SH-BN: the 95% intervals of the two ratios lie below 1.",
        _judge_variance,
    ),
    Claim(
        "The stable but autonomous net, ResNet-SH-Stable, does not learn the task.",
        "NAIS-Net, Fig. 3",
        "Its accuracy lies below 92%, about that of a linear classifier of the pixels: the 95% "
        "interval of the difference lies below 0, with both activations.",
        _judge_no_learning,
    ),
    Claim(
        "All ten nets refine their predictions in the first updates.",
        "NAIS-Net, 5.1 and Fig. 3",
        "The mean loss after 5 updates is smaller than that of the initial state, for all trained "
        "nets of each kind, with both activations.",
        _judge_refinement,
    ),
    Claim(
        "The loss of NAIS-Net falls at every depth.",
        "NAIS-Net, 5.1 and Fig. 3",
        "The mean loss on the test part rises at none of the 30 updates by more than 0.00001, for "
        "all trained nets, with both activations.",
        _judge_monotone,
    ),
    Claim(
        "NAIS-Net is the only net whose loss falls at every depth.",
        "NAIS-Net, 5.1 and Fig. 3",
        "For all trained nets of the nine other kinds, with both activations, the mean loss rises "
        "at one of the 30 updates or more.",
        _judge_alone,
    ),
    Claim(
        "Batch normalisation lets the loss of a non-autonomous net of shared weights fall earlier.",
        "NAIS-Net, 5.1 and Fig. 3",
        "The loss is scaled to 1 at depth 0 and to 0 at its smallest value; its mean over depth is "
        "smaller for ResNet-SH-NA-BN than for ResNet-SH-NA: the 95% interval of the difference, "
        "paired by seed, lies below 0, with both activations.",
        partial(_judge_batch_norm, names=("ResNet-SH-NA",)),
    ),
    Claim(
        "Batch normalisation lets the loss fall earlier in all ResNets.",
        "NAIS-Net, 5.1 and Fig. 3",
        "As in the claim before, for all four pairs of nets that differ in batch normalisation.",
        partial(_judge_batch_norm, names=WITHOUT_BN),
    ),
    Claim(
        "With batch normalisation, the unstable NAIS-Net, ResNet-SH-NA-BN, behaves much like "
        "NAIS-Net.",
        "NAIS-Net, 5.1",
        "The mean distance over depth of the two scaled losses is at most 0.1: the upper end of "
        "the 95% interval over seeds, with both activations.",
        _judge_similar,
    ),
    Claim(
        "The states of NAIS-Net settle at steady states that differ from image to image.",
        "NAIS-Net, 5.1 and Fig. 3",
        f"After {LONG:,} updates, for all trained nets, the mean distance of a state from the mean "
        "state is at least a tenth of the mean norm, and an update moves the state by at most a "
        "thousandth of it, with both activations.",
        _judge_different_states,
    ),
    Claim(
        "The states of NAIS-Net converge in times that differ from image to image.",
        "NAIS-Net, Fig. 3",
        "The number of updates after which nine tenths of the images have made nine tenths of "
        "their way is at least 1.5 times that of the first tenth, for all trained nets, with both "
        "activations.",
        _judge_times,
    ),
    Claim(
        "The states of ResNet-SH-Stable converge to zero.",
        "NAIS-Net, 5.1",
        "After 30 updates the mean norm of the states is below a twentieth of that of the initial "
        "states, for all trained nets, with both activations.",
        _judge_zero,
    ),
)
