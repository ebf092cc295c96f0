"""Whether it pays to stop by a threshold: against fewer updates, of the same net and trained."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from ..experiment import Case, Claim, Experiment, Results, Row, Verdict
from ..verdicts import combine, judge_not_worse, judge_sign, show

# Numbers of updates of a block with which nets are trained; the last one is all of them.
TRAINED = (1, 2, 3, 5, 10)
FULL = TRAINED[-1]
FIXED = (1, 2, 3, 4, 5, 6, 8, 10)
THRESHOLDS = tuple(float(f"{10**exponent:.3g}") for exponent in np.arange(2, -4.25, -0.5))
BATCH_SIZES = (1, 64)
# Number of test images of a timing.
TIMED = 256
# Mean updates between which thresholds and fixed depths are compared: outside of them the two are
# the same by construction.
COMPARED = (1.1, 0.9 * FULL)
# The loss of accuracy that counts as none, as a share of images.
NO_LOSS = 0.005
# The additional time that counts as none.
NO_COST = 1.1


def name_of(max_unroll: int) -> str:
    """Return the name of a condition."""
    return f"trained with {max_unroll} update{'' if max_unroll == 1 else 's'}"


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of the nets that are trained, by name."""
    settings: dict[str, Any] = {
        "preset": "nais-cifar10",
        "model": "nais10",
        "dataset": "cifar10",
    }
    if scale == "cpu":
        settings = {
            "model": "nais10",
            "dataset": "cifar10",
            "blocks": 2,
            "limit_train": 10_000,
            "epochs": 8,
        }
    return {name_of(updates): {**settings, "max_unroll": updates} for updates in TRAINED}


def compute(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Train a net; return its accuracy, and for the net of all updates that of many depths.

    Returns:
        `accuracy`, of the test part; and for the net of all updates `settings`, a list as
        `measure_settings` returns it with `seconds`, the time of an image by batch size.
    """
    # Imported late: these load TensorFlow, and the list of experiments needs none.
    from ..depth_measures import load_run, measure_settings, time_settings
    from ..trainings import result_of, trained

    run = trained(case, folder, console)
    measures: dict[str, Any] = {"accuracy": result_of(run)["test_accuracy"]}
    if case.settings["max_unroll"] != FULL:
        return measures
    model, data = load_run(run)
    settings = measure_settings(model, data, FIXED, THRESHOLDS)
    images = (data.test.images[:TIMED].astype(np.float32) - data.mean) / data.std
    for batch_size in BATCH_SIZES:
        for setting, seconds in zip(
            settings, time_settings(model, images, settings, batch_size), strict=True
        ):
            setting.setdefault("seconds", {})[str(batch_size)] = seconds
    return {**measures, "settings": settings}


class Curve(NamedTuple):
    """Depths of one kind, sorted by their updates.

    Attributes:
        updates: Numbers of updates of a block, mean over blocks and images.
        accuracy: Accuracies on the test part.
        seconds: Times of an image by batch size, in seconds.
    """

    updates: np.ndarray
    accuracy: np.ndarray
    seconds: Mapping[int, np.ndarray]


class Curves(NamedTuple):
    """The depths of one seed: by threshold, fixed in the same net, and trained."""

    threshold: Curve
    fixed: Curve
    trained: Curve


def read_curves(results: Results) -> list[Curves]:
    """Return the curves of each seed that has a net of all updates."""
    accuracies = {updates: results.by_seed(name_of(updates), "accuracy") for updates in TRAINED}
    return [
        _curves_of(row, {k: of_net[row.seed] for k, of_net in accuracies.items()})
        for row in results.rows
        if row.condition == name_of(FULL)
    ]


def _curves_of(row: Row, trained: Mapping[int, float]) -> Curves:
    settings = sorted(row.measures["settings"], key=lambda setting: setting["updates"])
    threshold, fixed = (
        Curve(
            np.array([setting["updates"] for setting in chosen]),
            np.array([setting["accuracy"] for setting in chosen]),
            {
                size: np.array([setting["seconds"][str(size)] for setting in chosen])
                for size in BATCH_SIZES
            },
        )
        for chosen in (
            [setting for setting in settings if setting["threshold"] is not None],
            [setting for setting in settings if setting["threshold"] is None],
        )
    )
    updates = np.array(list(trained))
    # The time of a fixed depth does not depend on the weights.
    seconds = {size: np.interp(updates, fixed.updates, fixed.seconds[size]) for size in BATCH_SIZES}
    return Curves(threshold, fixed, Curve(updates, np.array(list(trained.values())), seconds))


def _compared(curve: Curve) -> np.ndarray:
    return (curve.updates >= COMPARED[0]) & (curve.updates <= COMPARED[1])


def _other(curves: Curves, against: str) -> Curve:
    return curves.fixed if against == "fixed" else curves.trained


def _judge_accuracy(results: Results, against: str) -> Verdict:
    """Judge the mean difference of accuracy at equal mean updates."""
    gains = []
    for curves in read_curves(results):
        chosen, other = _compared(curves.threshold), _other(curves, against)
        expected = np.interp(curves.threshold.updates[chosen], other.updates, other.accuracy)
        if chosen.any():
            gains.append(np.mean(curves.threshold.accuracy[chosen] - expected))
    return judge_sign(np.array(gains), 1, f"mean gain {show(gains, '+.2%')}")


def _judge_cost(results: Results, batch_size: int) -> Verdict:
    """Judge the ratio of times at equal mean updates."""
    logs = []
    for curves in read_curves(results):
        chosen = _compared(curves.threshold)
        expected = np.interp(
            curves.threshold.updates[chosen], curves.fixed.updates, curves.fixed.seconds[batch_size]
        )
        if chosen.any():
            logs.append(np.mean(np.log(curves.threshold.seconds[batch_size][chosen] / expected)))
    text = f"batch {batch_size}: ratio of times {show(np.exp(logs), '.2f')}"
    return judge_not_worse(np.array(logs), float(np.log(NO_COST)), text)


def _judge_time(results: Results, against: str, batch_size: int) -> Verdict:
    """Judge the ratio of the least times that keep the accuracy of the net of all updates."""
    logs, found = [], []
    for curves in read_curves(results):
        kept = curves.fixed.accuracy[-1] - NO_LOSS
        ours, theirs = (
            # Fixed depths always keep it: all updates do. Thresholds that do not are too large.
            min(
                curve.seconds[batch_size][curve.accuracy >= kept],
                default=curve.seconds[batch_size][-1],
            )
            for curve in (curves.threshold, _other(curves, against))
        )
        logs.append(np.log(ours / theirs))
        found.append((ours, theirs))
    times = "; ".join(
        f"{name} {show(1000 * np.array(values), '.2f')}"
        for name, values in zip(("threshold", against), zip(*found, strict=True), strict=False)
    )
    text = f"batch {batch_size}, milliseconds: {times}; ratio {show(np.exp(logs), '.2f')}"
    return judge_sign(np.array(logs), -1, text)


def _each_batch_size(judge: Callable[[Results, int], Verdict], results: Results) -> Verdict:
    return combine([judge(results, batch_size) for batch_size in BATCH_SIZES])


_RANGE = f"the thresholds with {COMPARED[0]:g} to {COMPARED[1]:g} updates of a block"
_KEEPS = f"at most {100 * NO_LOSS:g} points below the net of all updates"
CLAIMS = (
    Claim(
        "At equal mean updates, stopping by a threshold is more accurate than a fixed number of "
        "updates of the same net.",
        "ours",
        f"The accuracy by threshold less that of the fixed number, interpolated, mean over {_RANGE}"
        ", one for each seed: its 95% interval lies above 0.",
        partial(_judge_accuracy, against="fixed"),
    ),
    Claim(
        "At equal mean updates, stopping by a threshold is more accurate than a net that was "
        "trained with this number of updates.",
        "ours",
        f"The accuracy by threshold less that of the trained nets, interpolated, mean over {_RANGE}"
        ", one for each seed: its 95% interval lies above 0.",
        partial(_judge_accuracy, against="trained"),
    ),
    Claim(
        "At equal mean updates, stopping by a threshold takes at most a tenth more time.",
        "ours",
        f"The ratio of the times, geometric mean over {_RANGE}, one for each seed: its 95% interval"
        f" lies below {NO_COST:g}, with batches of 1 and of 64.",
        partial(_each_batch_size, _judge_cost),
    ),
    *(
        Claim(
            f"Adaptive depth pays with a batch of {batch_size}: without loss of accuracy it takes "
            f"less time than {what}.",
            "ours",
            f"The least time of a threshold whose accuracy is {_KEEPS}, over the least time of "
            f"{what} of which that is true, one for each seed: its 95% interval lies below 1.",
            partial(_judge_time, against=against, batch_size=batch_size),
        )
        for batch_size in BATCH_SIZES
        for against, what in (
            ("fixed", "a fixed number of updates of the same net"),
            ("trained", "a net that was trained with fewer updates"),
        )
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw accuracy against updates and against time, a line for each kind of depth."""
    from .adaptive_figure import draw_adaptive

    draw_adaptive(path, read_curves(results), BATCH_SIZES)


ADAPTIVE_OR_FIXED = Experiment(
    name="adaptive-or-fixed",
    title="Stopping by a threshold, against a fixed number of updates",
    source="ours, on NAIS-Net, 5.3",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 5},
    compute=compute,
    claims=CLAIMS,
    draw=draw,
    reduced="6 blocks in place of 54, 10,000 training images of CIFAR-10, 8 epochs.",
)
