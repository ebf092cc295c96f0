"""The three indices of ordinary residual nets, stage by stage."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ..coupled_nets import settings_of
from ..experiment import Claim, Experiment, Results, Verdict
from ..published_nets import CIFAR10_NETS, cifar10_nets, measure_net
from ..residual_claims import judge_near_one
from ..verdicts import combine, judge_not_worse, judge_sign, show

STAGES = 3
# The net of which several instances are trained; at the scale cpu it is one of `coupling`.
TRAINED = {"cpu": ("mnist", 8), "paper": ("cifar10", 16)}
# The largest mean rise of the error, as a share of images, that counts as negligible.
NEGLIGIBLE = 0.02
# The smallest divergence index of a stage that is not robust.
NOT_ROBUST = 0.1
# The rank correlation of block and error below which a stage approaches its estimate smoothly.
SMOOTH = 0.8


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of the net of which instances are trained."""
    dataset, width = TRAINED[scale]
    return {f"{dataset}, width {width}": settings_of(scale, dataset, width, None)}


def _instances(results: Results) -> list[Mapping[str, Any]]:
    """Return the index reports of the trained instances, as dicts.

    Single nets of the zoo are shown beside them, and no verdict rests on those.
    """
    zoo = CIFAR10_NETS.values()
    return [row.measures["indices"] for row in results.rows if row.condition not in zoo]


def _of_stage(results: Results, index: str, stage: int) -> np.ndarray:
    """Return an index of a stage, one value for each instance that has one."""
    found = [report[index][stage] for report in _instances(results)]
    return np.array([value for value in found if value is not None], np.float64)


def _each_stage(judge: Callable[[Results, int], Verdict], results: Results) -> Verdict:
    return combine([judge(results, stage) for stage in range(STAGES)])


def _judge_smooth(results: Results, stage: int) -> Verdict:
    """Judge the rank correlation of block and error of the early readout."""
    curves = [report["errors"][stage]["early_readout"] for report in _instances(results)]
    found = [
        stats.spearmanr(np.arange(len(curve)), curve).statistic
        for curve in curves
        # A stage whose error is final after its first block has nothing to approach.
        if np.ptp(curve) > 0
    ]
    return judge_sign(
        np.array(found), -1, f"stage {stage + 1}: rank correlation {show(found)}", SMOOTH
    )


def _rises(results: Results) -> list[list[np.ndarray]]:
    """Return how much leaving out each block raises the error, by instance and stage."""
    return [
        [np.array(stage["left_out"]) - report["error"] for stage in report["errors"]]
        for report in _instances(results)
    ]


def _judge_later_blocks(results: Results, stage: int) -> Verdict:
    found = np.array([of_net[stage][1:].mean() for of_net in _rises(results)])
    return judge_not_worse(
        found, NEGLIGIBLE, f"stage {stage + 1}: mean rise by a later block {show(found, '.2%')}"
    )


def _judge_first_block(results: Results) -> Verdict:
    rises = _rises(results)
    firsts = np.array([np.mean([rise[0] for rise in of_net]) for of_net in rises])
    others = np.array([np.mean([rise[1:].mean() for rise in of_net]) for of_net in rises])
    text = f"rise by the first block {show(firsts, '.2%')}, by another {show(others, '.2%')}"
    return judge_sign(firsts - others, 1, text)


def _judge_recurrence(results: Results, stage: int) -> Verdict:
    return judge_near_one(_of_stage(results, "recurrence", stage), f"stage {stage + 1}")


def _judge_first_stage(results: Results) -> Verdict:
    reports = [
        report["divergence"] for report in _instances(results) if None not in report["divergence"]
    ]
    differences = np.array([first - min(later) for first, *later in reports])
    stages = ", ".join(show(_of_stage(results, "divergence", stage)) for stage in range(STAGES))
    return judge_sign(
        differences, -1, f"divergence index by stage: {stages}; first less lowest other"
    )


def _judge_not_robust(results: Results, stage: int) -> Verdict:
    found = _of_stage(results, "divergence", stage)
    text = f"stage {stage + 1}: divergence index {show(found)}"
    return judge_sign(found, 1, text, NOT_ROBUST)


CLAIMS = (
    Claim(
        "Every stage approaches its final estimate smoothly.",
        "Lippl et al., Fig. 2a",
        "The rank correlation of block number and error of the early readout, one for each "
        "instance, is negative and beyond -0.8: its 95% interval lies below that, in every stage.",
        partial(_each_stage, _judge_smooth),
    ),
    Claim(
        "Leaving out a block other than the first hardly raises the error.",
        "Lippl et al., Fig. 2a",
        "The mean rise by blocks 2 to 16 is at most 2 percentage points: the upper end of its 95% "
        "interval over the instances, in every stage.",
        partial(_each_stage, _judge_later_blocks),
    ),
    Claim(
        "Leaving out the first block raises the error more than leaving out another.",
        "Lippl et al., Fig. 2a",
        "The rise by the first block less the mean rise by the others, means over the stages, is "
        "positive: its 95% interval over the instances lies above 0.",
        _judge_first_block,
    ),
    Claim(
        "The recurrence index is close to 1 in all stages.",
        "Lippl et al., Fig. 2b",
        "Its mean over the instances lies within 0.1 of 1, in every stage.",
        partial(_each_stage, _judge_recurrence),
    ),
    Claim(
        "The first stage has the lowest divergence index.",
        "Lippl et al., Fig. 2b",
        "The index of the first stage less the lower of the other two is negative: its 95% "
        "interval over the instances lies below 0.",
        _judge_first_stage,
    ),
    Claim(
        "No stage is robust to further runs of its last block.",
        "Lippl et al., Fig. 2b",
        "The divergence index is above 0.1: the lower end of its 95% interval over the instances, "
        "in every stage.",
        partial(_each_stage, _judge_not_robust),
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the three curves of each stage, a row for each net."""
    from .perturbation_figure import draw_perturbations

    draw_perturbations(path, results)


RESIDUAL_INDICES = Experiment(
    name="resnet-indices",
    title="Indices of ordinary residual nets by stage",
    source="Lippl et al., Fig. 2",
    conditions=conditions,
    seeds={"cpu": 6, "paper": 6},
    compute=measure_net,
    claims=CLAIMS,
    draw=draw,
    reduced="Nets of 8 channels on 10,000 images of MNIST in place of 16 channels on CIFAR-10, for "
    "6 epochs; single CIFAR-10 nets of the zoo beside them, without a verdict.",
    single=cifar10_nets,
)
