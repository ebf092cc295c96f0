"""The experiment on the indices of ordinary nets: verdicts on made-up curves, and its figure."""

import numpy as np
import pytest
from PIL import Image

from training.reproduce.experiment import Outcome, Results, Row
from training.reproduce.experiments import coupled_stages
from training.reproduce.experiments.residual_indices import RESIDUAL_INDICES, conditions

CHANCE = 0.9


def made_up(early, left_out, divergence, recurrence=1.0, seeds=6):
    """Return results of nets of three stages; each argument is a function of the stage."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        noise = 0.0001 * rng.normal(size=16)
        errors = [
            {
                "early_readout": list(early(stage) + noise),
                "left_out": list(left_out(stage) + noise),
                "repeated": list(np.linspace(0.02, divergence(stage), 16) + noise),
            }
            for stage in range(3)
        ]
        report = {
            "error": 0.02,
            "chance": CHANCE,
            "convergence": [0.6, 0.6, 0.6],
            "recurrence": [recurrence + noise[0]] * 3,
            "divergence": [divergence(stage) + noise[1] for stage in range(3)],
            "errors": errors,
        }
        rows.append(Row("mnist, width 8", seed, {"indices": report}))
    return Results(rows)


def first_block(stage):
    """Return a curve where only the first block matters."""
    return np.array([0.5, *[0.025] * 15])


AS_THE_PAPER = {
    "early": lambda stage: np.linspace(0.8, 0.02, 16),
    "left_out": first_block,
    "divergence": lambda stage: 0.3 + 0.1 * stage,
}
OTHERWISE = {
    "early": lambda stage: np.linspace(0.02, 0.8, 16),
    "left_out": lambda stage: first_block(stage)[::-1] + 0.1 * (np.arange(16) > 0),
    "divergence": lambda stage: 0.05 - 0.01 * stage,
    "recurrence": 0.5,
}


def verdicts(results):
    return [claim.judge(results).outcome for claim in RESIDUAL_INDICES.claims]


def test_nets_as_those_of_the_paper_agree():
    assert set(verdicts(made_up(**AS_THE_PAPER))) == {Outcome.AGREES}


def test_nets_of_the_opposite_kind_differ():
    assert set(verdicts(made_up(**OTHERWISE))) == {Outcome.DIFFERS}


def test_one_stage_that_differs_is_enough():
    steep = made_up(**{**AS_THE_PAPER, "left_out": lambda s: first_block(s) + 0.1 * (s == 2)})
    assert verdicts(steep)[1] == Outcome.DIFFERS


def test_a_net_of_the_zoo_is_shown_and_decides_nothing(tmp_path):
    rows = made_up(**AS_THE_PAPER).rows
    published = made_up(**OTHERWISE, seeds=1).rows
    rows += [Row("resnet_w16_cifar10", 0, row.measures) for row in published]
    assert set(verdicts(Results(rows))) == {Outcome.AGREES}
    heights = []
    for number, results in enumerate((made_up(**AS_THE_PAPER), Results(rows))):
        RESIDUAL_INDICES.draw(tmp_path / f"{number}.png", results)
        with Image.open(tmp_path / f"{number}.png") as image:
            heights.append(image.height)
            assert len(image.convert("RGB").getcolors(2**24)) > 100
    assert heights[1] == 2 * heights[0]


@pytest.mark.parametrize("seeds", [0, 2])
def test_few_instances_decide_nothing(seeds):
    assert set(verdicts(made_up(**AS_THE_PAPER, seeds=seeds))) == {Outcome.UNDECIDABLE}


def test_instances_are_those_of_the_experiment_on_coupling():
    (settings,) = conditions("cpu").values()
    assert settings in coupled_stages.conditions("cpu").values()
