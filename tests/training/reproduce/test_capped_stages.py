"""The experiment on capped nets: its conditions, its verdicts on made-up nets, its figure."""

import numpy as np
import pytest
from PIL import Image

from training.reproduce.coupled_nets import STRENGTHS, name_of
from training.reproduce.experiment import Outcome, Results, Row
from training.reproduce.experiments import coupled_stages
from training.reproduce.experiments.capped_stages import CAPPED_STAGES, MODELS, conditions
from training.reproduce.trainings import run_name
from training.settings import make_settings

# Mean and slope over the strength of each measure.
AS_THE_PAPER = {
    "ordinary": {"convergence": (0.6, 0.1), "divergence": (0.5, -0.1), "error": (0.02, 0.01)},
    "ICR": {"convergence": (0.9, -0.05), "divergence": (0.01, 0.02), "error": (0.04, -0.015)},
    "PCR": {"convergence": (0.9, 0.0), "divergence": (0.01, 0.0), "error": (0.05, 0.0)},
}
OTHERWISE = {
    "ordinary": {"convergence": (0.9, 0.0), "divergence": (0.1, 0.0), "error": (0.05, 0.0)},
    "ICR": {"convergence": (0.6, 0.1), "divergence": (0.5, -0.1), "error": (0.03, 0.05)},
    "PCR": {"convergence": (0.6, 0.0), "divergence": (0.5, 0.0), "error": (0.01, 0.03)},
}


def made_up(kinds, recurrence=1.0, seeds=3):
    """Return results whose measures are lines over the strength, with a little noise."""
    rng = np.random.default_rng(0)
    rows = []
    for kind, lines in kinds.items():
        for strength in STRENGTHS:
            for seed in range(seeds):
                value = {
                    name: mean + slope * (strength or 0) + 0.0005 * rng.normal()
                    for name, (mean, slope) in lines.items()
                }
                measures = {
                    "error": value.pop("error"),
                    "indices": {"mean": {**value, "recurrence": recurrence + 0.01 * rng.normal()}},
                }
                rows.append(Row(name_of(kind, 8, strength), seed, measures))
    return Results(rows)


def verdicts(results):
    return [claim.judge(results).outcome for claim in CAPPED_STAGES.claims]


def test_nets_as_those_of_the_paper_agree():
    assert set(verdicts(made_up(AS_THE_PAPER))) == {Outcome.AGREES}


def test_nets_of_the_opposite_kind_differ():
    results = made_up(OTHERWISE, recurrence=0.5)
    found = {claim.text: claim.judge(results).outcome for claim in CAPPED_STAGES.claims}
    # With these numbers the slope of the error raises ICR's above the ordinary net's.
    assert found.pop("The cap raises the error of ICR at all strengths.") != Outcome.AGREES
    assert set(found.values()) == {Outcome.DIFFERS}


def test_few_seeds_decide_no_trend():
    found = verdicts(made_up(AS_THE_PAPER, seeds=1))
    assert found.count(Outcome.UNDECIDABLE) >= 4
    assert set(verdicts(Results([]))) == {Outcome.UNDECIDABLE}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_every_condition_is_a_training_of_its_own(scale):
    settings = {name: make_settings(**given) for name, given in conditions(scale).items()}
    assert len({run_name(each) for each in settings.values()}) == len(settings)
    assert {each.model for each in settings.values()} == set(MODELS.values())
    for each in settings.values():
        assert each.blocks is None
        assert each.overrides()["width"] == each.width


def test_the_ordinary_nets_are_those_of_the_experiment_on_coupling():
    """Equal settings are trained once."""
    of_coupling = [*coupled_stages.conditions("cpu").values()]
    ordinary = [given for given in conditions("cpu").values() if given["model"] == "resnet_w8"]
    assert len(ordinary) == 5
    assert all(given in of_coupling for given in ordinary)


def test_the_figure_has_a_row_for_the_nets_of_the_zoo_which_decide_nothing(tmp_path):
    trained, single = made_up(AS_THE_PAPER), made_up(OTHERWISE, seeds=1).rows[0]
    both = Results([*trained.rows, Row("icr_w16_cifar10", 0, single.measures)])
    assert verdicts(both) == verdicts(trained)
    heights = []
    for results in (trained, both):
        CAPPED_STAGES.draw(tmp_path / "capped.png", results)
        with Image.open(tmp_path / "capped.png") as image:
            assert image.width > 1000
            assert len(image.convert("RGB").getcolors(2**24)) > 100
            heights.append(image.height)
    assert heights[1] == 2 * heights[0]
