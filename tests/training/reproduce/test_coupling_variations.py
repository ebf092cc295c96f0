"""The experiment on variations of the coupling: its conditions, verdicts and figure."""

import numpy as np
import pytest
from PIL import Image

from training.reproduce.coupled_nets import COUPLED, TREND, name_of
from training.reproduce.experiment import Outcome, Results, Row
from training.reproduce.experiments import coupled_stages
from training.reproduce.experiments.coupling_variations import (
    COUPLING_VARIATIONS,
    VARIATIONS,
    conditions,
)
from training.reproduce.trainings import run_name
from training.settings import make_settings


def made_up(slopes, seeds=3):
    """Return results whose measures rise with the strength, by variation."""
    rng = np.random.default_rng(0)
    rows = []
    for variation in VARIATIONS:
        slope = slopes.get(variation, 1)
        for strength in TREND:
            for seed in range(seeds):
                convergence, divergence, error = (
                    0.5 + sign * slope * 0.1 * strength + 0.0005 * rng.normal()
                    for sign in (1, -1, 1)
                )
                mean = {"convergence": convergence, "divergence": divergence}
                measures = {"error": error, "indices": {"mean": mean}}
                rows.append(Row(name_of(variation, 4, strength), seed, measures))
    return Results(rows)


def verdicts(results):
    return [claim.judge(results).outcome for claim in COUPLING_VARIATIONS.claims]


@pytest.mark.parametrize(
    ("slopes", "expected"),
    [
        ({}, Outcome.AGREES),
        ({"triangular kernel": -1}, Outcome.DIFFERS),
        ({"last eight coupled": 0}, Outcome.UNDECIDABLE),
        # The claims are on the variations; those of the plain nets belong to `coupling`.
        ({"plain": -1}, Outcome.AGREES),
    ],
)
def test_every_variation_must_show_the_effect(slopes, expected):
    assert set(verdicts(made_up(slopes))) == {expected}


def test_two_seeds_decide_nothing():
    assert set(verdicts(made_up({}, seeds=2))) == {Outcome.UNDECIDABLE}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_a_variation_is_a_setting_of_the_run(scale):
    settings = {name: make_settings(**given) for name, given in conditions(scale).items()}
    for name, each in settings.items():
        assert ("gamma" in name) == (each.initial_gamma == 0.1)
        if each.coupling:
            assert ("kernel" in name) == (each.coupling_kernel == "triangular")
            members = {"first": "5:", "last": "-8:"}.get(name.split()[0])
            assert each.coupling_members == members
    coupled = [name for name, each in settings.items() if each.coupling]
    assert len({run_name(settings[name]) for name in coupled}) == len(coupled)


def test_nets_that_do_not_differ_are_trained_once():
    of_coupling = [*coupled_stages.conditions("cpu").values()]
    found = conditions("cpu")
    plain = [name_of(variation, 4, 0.0) for variation in VARIATIONS if "gamma" not in variation]
    assert all(found[name] == found[plain[0]] for name in plain)
    assert all(found[name_of("plain", 4, strength)] in of_coupling for strength in TREND)
    assert set(TREND) < set(COUPLED)


def test_the_figure_shows_every_variation(tmp_path):
    COUPLING_VARIATIONS.draw(tmp_path / "variations.png", made_up({}))
    with Image.open(tmp_path / "variations.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(2**24)) > 100
