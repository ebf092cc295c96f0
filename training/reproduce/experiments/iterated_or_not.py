"""What iteration costs or gains: a fast CIFAR-10 net, its twin without, and with fewer updates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..experiment import Case, Claim, Experiment, Results, Verdict
from ..verdicts import combine, judge_not_worse, judge_share, judge_sign, paired, show

ITERATED, PLAIN = "one block of three updates a stage", "two blocks of one update a stage"
# Three updates are three convolutions of the state and one of the input; two blocks of one update
# are two of each.
PLAIN_SETTINGS = {"blocks": 2, "max_unroll": 1}
UPDATES = 3
# The accuracy that the net is for; what counts as no loss, as shares of images.
WANTED, NO_LOSS = 0.9, 0.005
# The updates that an adaptive depth may take, as a share of all.
SHARE = 0.6
# Training images by which the threshold is chosen, so that no test image plays a part in it.
CHOSEN_BY = 5000


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of the two nets, by name: equal ones at each scale."""
    preset = {"preset": "fast-cifar10"}
    return {ITERATED: preset, PLAIN: {**preset, **PLAIN_SETTINGS}}


def compute(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Train a net; return its accuracy, and for the iterated one that of other depths.

    Returns:
        `accuracy` and `mirrored`, of the test part, the second with the mean of the logits of an
        image and its mirror image; `parameters`; `minutes`, of the training; and for the iterated
        net `settings`, a list as `measure_settings` returns it: fixed depths and, last, the
        threshold that keeps to `SHARE` of the updates on training images.
    """
    # Imported late: these load TensorFlow, and the list of experiments needs none.
    from ..depth_measures import load_run, measure_settings, threshold_of
    from ..trainings import result_of, trained

    run = trained(case, folder, console)
    result = result_of(run)
    measures = {
        "accuracy": result["test_accuracy"],
        "mirrored": result.get("test_accuracy_mirrored"),
        "parameters": result["parameters"],
        "minutes": result["seconds"] / 60,
    }
    if case.condition != ITERATED:
        return measures
    model, data = load_run(run)
    threshold = threshold_of(model, data, SHARE, CHOSEN_BY)
    fixed = range(1, UPDATES + 1)
    return {**measures, "settings": measure_settings(model, data, fixed, [threshold])}


def _settings(results: Results) -> dict[int, list[Mapping[str, Any]]]:
    """Return the depths of the iterated net of each seed; the adaptive one is the last."""
    rows = [row for row in results.rows if row.condition == ITERATED]
    return {row.seed: row.measures["settings"] for row in rows}


def _judge_wanted(results: Results) -> Verdict:
    accuracies = results.values(ITERATED, "accuracy")
    return judge_sign(accuracies - WANTED, 1, f"{show(accuracies, '.2%')}, less 90%")


def _judge_price(results: Results) -> Verdict:
    by_seed = [results.by_seed(name, "accuracy") for name in (PLAIN, ITERATED)]
    plain, iterated = (show(list(values.values()), ".2%") for values in by_seed)
    text = f"iterated {iterated}, not iterated {plain}"
    return judge_not_worse(paired(*by_seed), NO_LOSS, text)


def _judge_adaptive(results: Results) -> Verdict:
    found = list(_settings(results).values())
    losses = np.array([full["accuracy"] - adaptive["accuracy"] for *_, full, adaptive in found])
    shares = np.array([adaptive["updates"] / UPDATES for *_, adaptive in found])
    text = f"loss {show(losses, '.2%')}"
    held = judge_share(list(shares <= SHARE), f"updates {show(shares, '.0%')} of all")
    return combine([judge_not_worse(losses, NO_LOSS, text), held])


CLAIMS = (
    Claim(
        "A net of three iterated blocks reaches 90% on CIFAR-10 in 16 epochs.",
        "ours",
        "The test accuracy, of the image alone: the 95% interval of its mean lies above 90%.",
        _judge_wanted,
    ),
    Claim(
        "At equal arithmetic, iteration costs no accuracy.",
        "ours",
        "The accuracy of the iterated net is at most half a point below that of the net of twice as"
        " many blocks of one update: the 95% interval of the difference lies above -0.5 points.",
        _judge_price,
    ),
    Claim(
        "With at most 60% of the updates, chosen by image, it loses at most half a point.",
        "ours",
        "A threshold is chosen on training images such that they make at most 60% of the updates."
        " Then the test images do so too, for all nets, and the 95% interval of the loss of test"
        " accuracy lies below 0.5 points.",
        _judge_adaptive,
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw accuracy against updates: fixed depths, adaptive depth, and the net without."""
    from .iteration_figure import draw_iteration

    draw_iteration(path, _settings(results), results.by_seed(PLAIN, "accuracy"))


ITERATED_OR_NOT = Experiment(
    name="iterated-or-not",
    title="A fast net on CIFAR-10 with and without iteration",
    source="ours",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 5},
    compute=compute,
    claims=CLAIMS,
    draw=draw,
    reduced="Nothing but the number of seeds.",
)
