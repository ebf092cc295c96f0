"""NAIS-Net against ResNets on CIFAR-10 and CIFAR-100: accuracy, loss, and the gap to training."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from ..experiment import Case, Claim, Experiment, Outcome, Results, Verdict
from ..verdicts import FEWEST, combine, judge_not_worse, judge_sign, paired, show

# The ResNet of the paper, its twin with the number of parameters of NAIS-Net, and NAIS-Net.
RESNET, TWIN, NAIS1, NAIS10 = NETS = ("resnet54", "resnet54_wide", "nais1", "nais10")
PRESETS = {RESNET: "resnet", TWIN: "resnet", NAIS1: "nais1", NAIS10: "nais"}
DATASETS = ("cifar10", "cifar100")
# The difference of test accuracy up to which nets are similar, as a share of images.
SIMILAR = 0.02
# The ratio of gaps that is as near to a third smaller as to equal.
SMALLER = 5 / 6
# The number of updates that the paper trains, and the training accuracy of a net that trains.
DEEPEST, TRAINED = 540, 0.8


def name_of(dataset: str, net: str) -> str:
    """Return the name of a condition."""
    return f"{dataset}, {net}"


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name; the nets have equal budgets."""
    found = {}
    for dataset in DATASETS:
        for net in NETS:
            settings: dict[str, Any] = {"preset": f"{PRESETS[net]}-{dataset}"}
            if scale == "cpu":
                # Without augmentation, so that a gap appears within few epochs.
                settings = {"blocks": 2, "limit_train": 4500, "epochs": 15, "augment": "none"}
            found[name_of(dataset, net)] = {"model": net, "dataset": dataset, **settings}
    return found


def compute(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Train a net, and return its accuracy and loss.

    Returns:
        `train_accuracy`, `test_accuracy`, and `gap`, their difference; `test_loss`, the
        cross-entropy; `parameters`; `updates`; and `curves`, lists by epoch: `accuracy`, that of
        the training images while they are trained on, and `val_accuracy` where there is a
        validation part.
    """
    # Imported late: these load TensorFlow, and the list of experiments needs none.
    from ..depth_measures import load_run, test_loss
    from ..trainings import result_of, trained

    run = trained(case, folder, console)
    result = result_of(run)
    rows = run.read_history(result["epochs"])
    kept = ("train_accuracy", "test_accuracy", "parameters")
    return {
        **{name: result[name] for name in kept},
        "gap": result["generalization_gap"],
        "updates": result["processing_depth"],
        "test_loss": test_loss(*load_run(run)),
        "curves": {
            name: [row[name] for row in rows]
            for name in ("accuracy", "val_accuracy")
            if name in rows[0]
        },
    }


def _difference(results: Results, dataset: str, ours: str, theirs: str, measure: str) -> np.ndarray:
    """Return a measure of one net less that of another, for each seed that both have."""
    first, second = (results.by_seed(name_of(dataset, net), measure) for net in (ours, theirs))
    return paired(first, second)


def _beside(results: Results, dataset: str, nets: tuple[str, ...], measure: str, form: str) -> str:
    """Return a measure of some nets as text."""
    values = (f"{net} {show(results.values(name_of(dataset, net), measure), form)}" for net in nets)
    return f"{dataset}: {', '.join(values)}"


def _judge_similar(results: Results) -> Verdict:
    return combine(
        [
            judge_not_worse(
                -_difference(results, "cifar10", net, RESNET, "test_accuracy"),
                SIMILAR,
                _beside(results, "cifar10", (net, RESNET), "test_accuracy", ".2%"),
            )
            for net in (NAIS1, NAIS10)
        ]
    )


def _judge_unrolling(results: Results) -> Verdict:
    differences = _difference(results, "cifar10", NAIS10, NAIS1, "test_accuracy")
    text = _beside(results, "cifar10", (NAIS10, NAIS1), "test_accuracy", ".2%")
    return combine([judge_not_worse(sign * differences, SIMILAR, text) for sign in (1, -1)])


def _judge_more_updates(results: Results) -> Verdict:
    differences = _difference(results, "cifar100", NAIS10, NAIS1, "test_accuracy")
    text = _beside(results, "cifar100", (NAIS10, NAIS1), "test_accuracy", ".2%")
    return judge_sign(differences, 1, text)


def _judge_variance(results: Results, dataset: str) -> Verdict:
    """Judge the ratio of the variances of the test accuracies over the seeds, by an F-test."""
    ours, theirs = (
        results.values(name_of(dataset, net), "test_accuracy") for net in (NAIS10, RESNET)
    )
    text = _beside(results, dataset, (NAIS10, RESNET), "test_accuracy", ".2%")
    if min(len(ours), len(theirs)) < FEWEST or theirs.var() == 0:
        return Verdict(Outcome.UNDECIDABLE, f"{text}; fewer than 3 seeds, or no variance")
    ratio = ours.var(ddof=1) / theirs.var(ddof=1)
    degrees = len(ours) - 1, len(theirs) - 1
    low, high = (ratio / stats.f.ppf(share, *degrees) for share in (0.975, 0.025))
    outcome = Outcome.UNDECIDABLE
    if high < 1 or low > 1:
        outcome = Outcome.AGREES if high < 1 else Outcome.DIFFERS
    return Verdict(outcome, f"{text}; ratio of variances {ratio:.2f} [{low:.2f}, {high:.2f}]")


def _judge_third(results: Results, theirs: str) -> Verdict:
    ours, others = (results.by_seed(name_of("cifar100", net), "gap") for net in (NAIS10, theirs))
    seeds = sorted(set(ours) & set(others))
    if any(others[seed] <= 0 for seed in seeds):
        return Verdict(Outcome.UNDECIDABLE, f"{theirs} has no gap")
    ratios = np.array([ours[seed] / others[seed] for seed in seeds])
    text = _beside(results, "cifar100", (NAIS10, theirs), "gap", ".2%")
    return judge_sign(ratios - SMALLER, -1, f"{text}; ratio {show(ratios, '.2f')} less 5/6")


def _judge_smaller(results: Results, measure: str, form: str) -> Verdict:
    differences = _difference(results, "cifar10", NAIS10, RESNET, measure)
    return judge_sign(differences, -1, _beside(results, "cifar10", (NAIS10, RESNET), measure, form))


def _judge_deep(results: Results) -> Verdict:
    nets = [row.measures for row in results.rows if row.condition.endswith(NAIS10)]
    if not nets or any(net["updates"] < DEEPEST for net in nets):
        deepest = max((net["updates"] for net in nets), default=0)
        return Verdict(Outcome.UNDECIDABLE, f"{deepest} updates, not {DEEPEST}")
    accuracies = [net["train_accuracy"] for net in nets]
    trained = min(accuracies) >= TRAINED
    return Verdict(
        Outcome.AGREES if trained else Outcome.DIFFERS,
        f"training accuracy {show(accuracies, '.2%')}, lowest {min(accuracies):.2%}",
    )


_TABLE = "NAIS-Net, 5.2, table"
_THIRD = (
    "The gap between training and test accuracy of nais10 over that of {net}, one ratio for each "
    "seed: its 95% interval lies below 5/6, which is as near to a third smaller as to equal."
)
CLAIMS = (
    Claim(
        "On CIFAR-10, NAIS-Net and ResNet are similarly accurate.",
        _TABLE,
        "The test accuracy of nais1 and of nais10 is at most two points below that of resnet54: "
        "the 95% interval of the difference lies above -2 points, for both.",
        _judge_similar,
    ),
    Claim(
        "On CIFAR-10, more than one update has little effect on accuracy.",
        _TABLE,
        "The 95% interval of the difference of test accuracy of nais10 and nais1 lies within two "
        "points of 0.",
        _judge_unrolling,
    ),
    Claim(
        "On CIFAR-100, ten updates are more accurate than one.",
        _TABLE,
        "The 95% interval of the difference of test accuracy of nais10 and nais1 lies above 0.",
        _judge_more_updates,
    ),
    Claim(
        "The accuracy of NAIS-Net varies less over the runs than that of ResNet.",
        "NAIS-Net, 5.2; its table says otherwise",
        "The 95% interval of the ratio of the variances of test accuracy, nais10 over resnet54, by "
        "an F-test, lies below 1, on both data sets.",
        lambda results: combine([_judge_variance(results, dataset) for dataset in DATASETS]),
    ),
    Claim(
        "On CIFAR-100, the generalisation gap of NAIS-Net is a third smaller.",
        "NAIS-Net, 5.2, table and Fig. 4",
        _THIRD.format(net=RESNET),
        partial(_judge_third, theirs=RESNET),
    ),
    Claim(
        "On CIFAR-100, the gap is a third smaller than that of a ResNet of equal parameters, too.",
        "ours; NAIS-Net's blocks have two kernels, those of its ResNet one",
        _THIRD.format(net=TWIN),
        partial(_judge_third, theirs=TWIN),
    ),
    Claim(
        "On CIFAR-10, too, NAIS-Net has the smaller gap.",
        "NAIS-Net, Fig. 4; its table has equal gaps",
        "The 95% interval of the difference of gaps, nais10 less resnet54, lies below 0.",
        partial(_judge_smaller, measure="gap", form=".2%"),
    ),
    Claim(
        "On CIFAR-10, NAIS-Net has the lower test loss.",
        "NAIS-Net, Fig. 4",
        "The 95% interval of the difference of test cross-entropy, nais10 less resnet54, lies below"
        " 0.",
        partial(_judge_smaller, measure="test_loss", form=".3f"),
    ),
    Claim(
        "A NAIS-Net of 540 updates trains without problems.",
        "NAIS-Net, 5.2",
        "All nets of 540 updates reach a training accuracy of 80%; without such a net it is not "
        "decidable.",
        _judge_deep,
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the accuracy by epoch, and the gap of each net, a row for each data set."""
    from .cifar_figure import draw_cifar

    draw_cifar(path, results, DATASETS, NETS, name_of)


CIFAR_TABLE = Experiment(
    name="cifar-table",
    title="NAIS-Net and ResNets on CIFAR-10 and CIFAR-100: accuracy and gap",
    source="NAIS-Net, 5.2, table and Fig. 4",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 5},
    compute=compute,
    claims=CLAIMS,
    draw=draw,
    reduced="6 blocks in place of 54, 4,500 training images, 15 epochs without augmentation; "
    "CIFAR-100 is a tenth of the data set, 1,000 test images.",
)
