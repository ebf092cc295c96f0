"""The experiment on coupled nets: its conditions, its verdicts on made-up nets, its figure."""

import numpy as np
import pytest
from PIL import Image

from training.reproduce.coupled_nets import STRENGTHS, name_of
from training.reproduce.experiment import Outcome, Results, Row
from training.reproduce.experiments.coupled_stages import (
    COUPLED_STAGES,
    conditions,
)
from training.reproduce.trainings import run_name
from training.settings import make_settings

WIDTHS = (2, 4, 8)
SEEDS = range(3)


def made_up(convergence, divergence, error, datasets=("mnist", "digitclutter5")):
    """Return results whose measures are functions of width and strength, with a little noise."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset in datasets:
        for width in WIDTHS:
            for strength in STRENGTHS:
                for seed in SEEDS:
                    s = 0.0 if strength is None else strength
                    mean = {
                        "convergence": convergence(width, s) + 0.005 * rng.normal(),
                        "divergence": divergence(width, s) + 0.005 * rng.normal(),
                        "recurrence": 1 + 0.01 * rng.normal(),
                    }
                    measures = {
                        "error": error(width, s) + 0.0005 * rng.normal(),
                        "indices": {"mean": mean},
                    }
                    rows.append(Row(name_of(dataset, width, strength), seed, measures))
    return Results(rows)


def untied(s):
    """Return a measure of the strength that rises up to 0.9, and falls to full coupling."""
    return s if s < 1 else 0.5


AS_THE_PAPER = {
    "convergence": lambda width, s: 0.3 + 0.2 * untied(s) + 0.06 * width,
    "divergence": lambda width, s: 0.9 - 0.2 * untied(s) - 0.06 * width,
    "error": lambda width, s: (0.3 + 0.08 * s) / width,
}
OTHERWISE = {
    "convergence": lambda width, s: 0.9 - 0.2 * untied(s) - 0.06 * width,
    "divergence": lambda width, s: 0.3 + 0.2 * untied(s) + 0.06 * width,
    "error": lambda width, s: (0.3 - 0.02 * s) / width,
}
NEAR_ONE = "The recurrence index is centred around 1."
UNRELATED = "Among nets of equal size, index and error are unrelated."
TIED = "In fully coupled nets the convergence index does not go on rising."


def verdicts(results):
    return {claim.text: claim.judge(results).outcome for claim in COUPLED_STAGES.claims}


def test_nets_as_those_of_the_paper_agree():
    found = verdicts(made_up(**AS_THE_PAPER))
    # In these, index and error rise together with the coupling at each width.
    assert found.pop(UNRELATED) == Outcome.DIFFERS
    assert set(found.values()) == {Outcome.AGREES}


def test_nets_of_the_opposite_kind_differ():
    found = verdicts(made_up(**OTHERWISE))
    assert found.pop(NEAR_ONE) == Outcome.AGREES
    assert set(found.values()) == {Outcome.DIFFERS}


def test_unrelated_measures_agree_with_the_last_claim():
    rng = np.random.default_rng(1)
    noise = {name: lambda width, s: 0.5 + 0.1 * rng.normal() for name in AS_THE_PAPER}
    assert verdicts(made_up(**noise))[UNRELATED] == Outcome.AGREES


def test_one_data_set_that_differs_is_enough():
    rows = made_up(**AS_THE_PAPER, datasets=("mnist",)).rows
    rows += made_up(**OTHERWISE, datasets=("digitclutter5",)).rows
    assert verdicts(Results(rows))["Coupling raises the convergence index."] == Outcome.DIFFERS


@pytest.mark.parametrize("seeds", [0, 1])
def test_few_results_decide_nothing(seeds):
    rows = [row for row in made_up(**AS_THE_PAPER).rows if row.seed < seeds]
    few = Results([row for row in rows if ", width 2, " in row.condition])
    found = verdicts(few)
    # 10 nets of one width are enough for the mean of an index.
    assert found.pop(NEAR_ONE) == (Outcome.AGREES if seeds else Outcome.UNDECIDABLE)
    assert set(found.values()) == {Outcome.UNDECIDABLE}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_every_condition_is_a_training_of_its_own(scale):
    settings = {name: make_settings(**given) for name, given in conditions(scale).items()}
    assert len({run_name(each) for each in settings.values()}) == len(settings)
    for name, each in settings.items():
        assert each.dataset in name
        assert each.overrides()["width"] == each.width
        # Lippl et al. have 16 blocks a stage, the model's own number.
        assert each.blocks is None
        assert each.coupling is None or each.overrides()["shared_initialization"]


def test_the_figure_shows_each_data_set(tmp_path):
    COUPLED_STAGES.draw(tmp_path / "coupling.png", made_up(**AS_THE_PAPER))
    with Image.open(tmp_path / "coupling.png") as image:
        assert image.width > 1000
        assert image.height > 600
        assert len(image.convert("RGB").getcolors(2**24)) > 100
