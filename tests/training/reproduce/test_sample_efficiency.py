"""The experiment on few training images: its budgets, verdicts and figure."""

import math

import numpy as np
import pytest
from PIL import Image

from training.reproduce.coupled_nets import name_of
from training.reproduce.experiment import Outcome, Results, Row
from training.reproduce.experiments import coupled_stages
from training.reproduce.experiments.sample_efficiency import (
    COMPARED,
    SAMPLE_EFFICIENCY,
    conditions,
)
from training.reproduce.trainings import run_name
from training.settings import make_settings


def made_up(slope, datasets=("mnist", "digitclutter2", "digitclutter5", "cifar10"), seeds=3):
    """Return results whose error rises with the strength by a function of the group."""
    rng = np.random.default_rng(0)
    rows = []
    groups = {name.rpartition(", width")[0] for name in conditions("cpu")}
    for group in sorted(groups):
        if not group.startswith(tuple(f"{dataset}," for dataset in datasets)):
            continue
        for strength in COMPARED:
            for seed in range(seeds):
                error = 0.2 + slope(group) * strength + 0.0005 * rng.normal()
                rows.append(Row(name_of(group, 4, strength), seed, {"error": error}))
    return Results(rows)


def verdicts(results):
    """Return the outcomes of the claims on Digitclutter, CIFAR-100, CIFAR-10, MNIST and use."""
    return [claim.judge(results).outcome for claim in SAMPLE_EFFICIENCY.claims]


def test_errors_that_rise_agree_and_no_data_set_decides_nothing():
    expected = [Outcome.AGREES] * 5
    expected[1] = Outcome.UNDECIDABLE  # CIFAR-100 is not run at this scale.
    assert verdicts(made_up(lambda group: 0.1)) == expected
    assert set(verdicts(Results([]))) == {Outcome.UNDECIDABLE}
    assert set(verdicts(made_up(lambda group: 0.1, seeds=2))) == {Outcome.UNDECIDABLE}


def test_one_group_that_differs_is_enough():
    results = made_up(lambda group: -0.1 if "digitclutter5" in group else 0.1)
    assert verdicts(results)[0] == Outcome.DIFFERS
    assert verdicts(results)[2:] == [Outcome.AGREES] * 3


@pytest.mark.parametrize(
    ("falling", "use"),
    [
        ("mnist, 500 images, equal epochs", Outcome.DIFFERS),
        ("mnist, 500 images, equal steps", Outcome.DIFFERS),
        # Neither are these the fewest images.
        ("mnist, 2000 images, equal steps", Outcome.AGREES),
        ("mnist, 10000 images, equal steps", Outcome.AGREES),
    ],
)
def test_use_is_judged_at_the_fewest_images(falling, use):
    results = made_up(lambda group: -0.1 if group == falling else 0.1)
    assert verdicts(results)[-1] == use


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_equal_steps_are_equal_and_every_condition_is_a_training(scale):
    steps = {}
    settings = {name: make_settings(**given) for name, given in conditions(scale).items()}
    whole = {"mnist": 54_000, "cifar10": 45_000, "cifar100": 45_000}
    for name, each in settings.items():
        images = each.limit_train or whole.get(each.dataset, 100_000)
        assert f"{images} images" in name
        if "equal steps" in name:
            steps.setdefault(each.dataset, set()).add(
                each.epochs * math.ceil(images / each.batch_size)
            )
        else:
            assert each.epochs == (6 if scale == "cpu" else 200)
    for found in steps.values():
        assert max(found) <= 1.02 * min(found)
    assert len({run_name(each) for each in settings.values()}) == len(settings)


def test_the_largest_sets_share_the_trainings_of_coupling():
    of_coupling = [*coupled_stages.conditions("cpu").values()]
    for dataset in ("mnist", "digitclutter2"):
        group = f"{dataset}, 10000 images, equal steps"
        for strength in COMPARED:
            assert conditions("cpu")[name_of(group, 4, strength)] in of_coupling


def test_the_figure_has_a_panel_for_each_data_set_and_budget(tmp_path):
    SAMPLE_EFFICIENCY.draw(tmp_path / "sample.png", made_up(lambda group: 0.1))
    with Image.open(tmp_path / "sample.png") as image:
        assert image.width > 1000
        assert image.width > image.height
        assert len(image.convert("RGB").getcolors(2**24)) > 100
