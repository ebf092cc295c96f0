"""Coupled nets with few training images: the error by strength, at equal steps and epochs."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...settings import make_settings
from ..coupled_nets import STRENGTHS, WIDTHS, name_of, series_of, settings_of
from ..experiment import Claim, Experiment, Results, Verdict
from ..published_nets import measure_net
from ..residual_claims import Groups, judge_no_rise, judge_slopes
from ..residual_measures import errors
from .coupled_stages import DATA as COUPLING_DATA

# Numbers of training images; None for the number of the scale, with which nets train for its
# epochs. Those nets are the ones of `coupling` where that has the data set and the width.
IMAGES: Mapping[str, Mapping[str, tuple[int | None, ...]]] = {
    "cpu": {
        "mnist": (500, 2_000, None),
        "digitclutter2": (2_000, None),
        "digitclutter3": (None,),
        "digitclutter4": (None,),
        "digitclutter5": (None,),
        "cifar10": (2_000,),
    },
    "paper": {
        "mnist": (500, 2_000, 10_000, None),
        **{f"digitclutter{digits}": (10_000, None) for digits in (2, 3, 4, 5)},
        "cifar10": (2_000, 10_000, None),
        "cifar100": (None,),
    },
}
# What None stands for.
WHOLE = {"mnist": 54_000, "cifar10": 45_000, "cifar100": 45_000}
WHOLE |= {f"digitclutter{digits}": 100_000 for digits in (2, 3, 4, 5)}
SIZES: Mapping[str, tuple[tuple[int, ...], tuple[float | None, ...]]] = {
    "cpu": ((4,), (0.0, 0.9)),
    "paper": (WIDTHS["paper"], STRENGTHS),
}
# The strengths that are judged and drawn, at both scales.
COMPARED = (0.0, 0.9)
STEPS, EPOCHS = "equal steps", "equal epochs"
# The largest gain by coupling, in error per unit of strength, that counts as none.
NO_GAIN = 0.005
# The number of images from which on they are not few.
FEW = 10_000


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name."""
    widths, strengths = SIZES[scale]
    return {
        name_of(group, width, strength): settings_of(scale, dataset, width, strength, **changed)
        for dataset, counts in IMAGES[scale].items()
        for images in counts
        for group, changed in _budgets(scale, dataset, images).items()
        for width in widths
        for strength in strengths
    }


def _budgets(scale: str, dataset: str, images: int | None) -> dict[str, dict[str, Any]]:
    """Return what differs from the settings of the scale, for equal steps and equal epochs."""
    usual = make_settings(**settings_of(scale, dataset, 8, None))
    whole = usual.limit_train or WHOLE[dataset]
    steps, epochs = (f"{dataset}, {images or whole} images, {each}" for each in (STEPS, EPOCHS))
    if images is None:
        # Both budgets are the same.
        return {steps: {} if dataset in COUPLING_DATA[scale] else {"index_images": 0}}
    wanted = usual.epochs * math.ceil(whole / usual.batch_size)
    few = {"limit_train": images, "index_images": 0}
    return {
        steps: {**few, "epochs": round(wanted / math.ceil(images / usual.batch_size))},
        epochs: few,
    }


def _groups(results: Results, prefix: str, *budgets: str) -> Groups:
    """Return the conditions of the groups whose data set begins so, by group."""
    return {
        group: [*rows.values()]
        for group, rows in series_of(results, COMPARED).items()
        if group.startswith(prefix) and group.endswith(budgets)
    }


def _judge_rise(results: Results, prefix: str) -> Verdict:
    """Judge the rise of the error with the strength, at equal steps."""
    groups = _groups(results, prefix, STEPS)
    return judge_slopes(results, groups, COMPARED, errors, 1, "error per unit of coupling", ".2%")


def _gains(results: Results, condition: str) -> dict[int, float]:
    return {seed: -error for seed, error in errors(results, condition).items()}


def _judge_gain(results: Results) -> Verdict:
    """Judge whether coupling gains nothing at the smallest number of images of each data set."""
    groups = _groups(results, "", STEPS, EPOCHS)
    smallest: dict[tuple[str, str], tuple[int, str]] = {}
    for group in groups:
        dataset, images, budget = group.split(", ")
        found = (int(images.split()[0]), group)
        if found[0] < FEW:
            smallest[dataset, budget] = min(found, smallest.get((dataset, budget), found))
    chosen = {group: groups[group] for _, group in smallest.values()}
    text = "gain per unit of coupling"
    return judge_no_rise(results, chosen, COMPARED, _gains, NO_GAIN, text)


def _rises(name: str, prefix: str, panel: str) -> Claim:
    return Claim(
        f"A stronger coupling leads to a higher error on {name}.",
        f"Lippl et al., S3{panel} Fig.",
        "The test error at strength 0.9 less that at 0, per unit of strength, one for each width "
        "and seed, is positive: its 95% interval lies above 0, for every number of images, at "
        "equal steps.",
        partial(_judge_rise, prefix=prefix),
    )


CLAIMS = (
    _rises("Digitclutter with 2 to 5 digits and of every size", "digitclutter", "a"),
    _rises("CIFAR-100", "cifar100,", "b"),
    _rises("CIFAR-10 with few images", "cifar10,", "c"),
    _rises("MNIST", "mnist,", "d"),
    Claim(
        "With few images a stronger coupling is of no use either.",
        "Lippl et al., S3 Fig.",
        "At the smallest number of images, below 10,000, the error falls by at most 0.5 percentage "
        "points per unit of strength: the upper end of its 95% interval, for every data set, at "
        "equal steps and at equal epochs.",
        _judge_gain,
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the error against the strength: a panel for each data set and budget."""
    from .strength_figure import ERROR, draw_strengths

    rows: dict[str, dict[str, list[str]]] = {}
    for group, series in series_of(results, COMPARED).items():
        dataset, images, budget = group.split(", ")
        kind, digits = dataset, ""
        if dataset.startswith("digitclutter"):
            kind, digits = "digitclutter", f"{dataset.removeprefix('digitclutter')} digits, "
        for width, names in series.items():
            label = f"{digits}{images}" + (f", width {width}" if len(series) > 1 else "")
            rows.setdefault(f"{kind}, {budget}", {})[label] = names
    draw_strengths(path, results, rows, COMPARED, {ERROR: errors})


SAMPLE_EFFICIENCY = Experiment(
    name="sample-efficiency",
    title="Coupled nets with few training images, at equal steps and at equal epochs",
    source="Lippl et al., S3 Fig.",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 6},
    compute=measure_net,
    claims=CLAIMS,
    draw=draw,
    reduced="4 channels in place of 8 to 64; strengths 0 and 0.9; 500 to 10,000 images of MNIST, "
    "2,000 and 10,000 of Digitclutter, 2,000 of CIFAR-10, no CIFAR-100; as many steps as 6 epochs "
    "of 10,000 images.",
)
