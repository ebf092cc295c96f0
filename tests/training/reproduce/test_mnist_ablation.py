"""The experiment on MNIST: its conditions, what it measures, its verdicts on made-up nets."""

import json
import types

import numpy as np
import pytest
from PIL import Image

import keras_iterconv as ki
from training.reproduce.experiment import Case, Outcome, Results, Row
from training.reproduce.experiments import mnist_ablation
from training.reproduce.experiments.mnist_ablation import MNIST_ABLATION, conditions, measure
from training.reproduce.experiments.mnist_ablation_claims import (
    ACTIVATIONS,
    CLAIMS,
    MODELS,
    condition_of,
    progress,
)
from training.reproduce.trainings import run_name
from training.settings import make_settings

DEPTHS = np.arange(31)
FALLING = np.exp(-DEPTHS / 8) + 0.05
SLOWER = np.exp(-DEPTHS / 20) + 0.05
# Falls later, and rises at the end.
RISING = np.where(DEPTHS < 25, 1.1 - DEPTHS / 25, 0.1 + 0.05 * (DEPTHS - 24)) + 0.05


def made_up(curves, error, norms, long, spread=None):
    """Return results of three seeds, ten for NAIS-Net: functions of the name, with small noise."""
    rng = np.random.default_rng(0)
    rows = []
    for name in MODELS:
        for activation in ACTIVATIONS:
            for seed in range(10):
                noise = (spread or (lambda name: 1.0))(name) * 3e-4 * rng.normal()
                measures = {
                    "diverged": name == "ResNet",
                    "clipped": name == "ResNet",
                    "error": error(name) + noise,
                    "losses": list(curves(name) * (1 + 0.01 * rng.random())),
                    "norms": list(norms(name)),
                    "neuron": [list(DEPTHS * digit / 10) for digit in range(10)],
                    "long": long(name) if name in ("NAIS-Net", "ResNet-SH-Stable") else None,
                }
                rows.append(Row(condition_of(name, activation), seed, measures))
    return Results(rows)


def paper_error(name):
    return {"NAIS-Net": 0.0272, "ResNet-SH-BN": 0.0331, "ResNet-SH-Stable": 0.6}.get(name, 0.0414)


def paper_curve(name):
    if name in ("NAIS-Net", "ResNet-SH-NA-BN"):
        return FALLING + (0.2 * (DEPTHS == 29) if name != "NAIS-Net" else 0)
    return RISING - (0.5 * (DEPTHS == 12) if name.endswith("BN") else 0) * RISING


AS_THE_PAPER = {
    "error": paper_error,
    "curves": lambda name: paper_curve(name),
    "norms": lambda name: 5 * np.exp(-DEPTHS / 5),
    "long": lambda name: {"norm": 1.0, "spread": 0.5, "motion": 1e-5, "settled": [100.0, 300.0]},
    "spread": lambda name: 0.2 if name == "NAIS-Net" else 1.0,
}
OTHERWISE = {
    "error": lambda name: 0.06 if name == "NAIS-Net" else 0.02 + 0.03 * name.endswith("BN"),
    "curves": lambda name: {True: FALLING[::-1], False: SLOWER if "BN" in name else FALLING}[
        name == "NAIS-Net"
    ],
    "norms": lambda name: 5 - DEPTHS / 31,
    "long": lambda name: {"norm": 1.0, "spread": 0.01, "motion": 1e-2, "settled": [100.0, 110.0]},
    "spread": lambda name: 8.0 if name == "NAIS-Net" else 1.0,
}


def verdicts(results):
    return {claim.text: claim.judge(results).outcome for claim in CLAIMS}


def test_nets_as_those_of_the_paper_agree():
    assert set(verdicts(made_up(**AS_THE_PAPER)).values()) == {Outcome.AGREES}


def test_nets_of_the_opposite_kind_differ():
    found = verdicts(made_up(**OTHERWISE))
    agreeing = [text for text, outcome in found.items() if outcome != Outcome.DIFFERS]
    # The one that is true of them too.
    assert agreeing == ["NAIS-Net trains without normalisation of its states."]


@pytest.mark.parametrize("seeds", [0, 1])
def test_few_results_decide_nothing(seeds):
    rows = [row for row in made_up(**AS_THE_PAPER).rows if row.seed < seeds]
    assert set(verdicts(Results(rows)).values()) == {Outcome.UNDECIDABLE}


def test_nets_that_diverge_are_results():
    rows = [
        row._replace(measures={**row.measures, **mnist_ablation._nothing(), "diverged": True})
        if row.condition == "ResNet-SH-Stable, relu"
        else row
        for row in made_up(**AS_THE_PAPER).rows
    ]
    found = verdicts(Results(rows))
    assert found["NAIS-Net is the most accurate of the ten nets."] == Outcome.UNDECIDABLE
    assert found["The loss of NAIS-Net falls at every depth."] == Outcome.AGREES
    json.dumps([row.measures for row in rows], allow_nan=False)


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_every_condition_is_a_training_of_its_own(scale):
    settings = {name: make_settings(**given) for name, given in conditions(scale).items()}
    assert len({run_name(each) for each in settings.values()}) == len(settings) == 20
    for each in settings.values():
        assert (each.learning_rate, each.pixels, each.validation_share) == (0.1, "unit", 0)


@pytest.mark.parametrize("name", ["NAIS-Net, tanh", "ResNet-SH-Stable, tanh", "ResNet-NA, relu"])
def test_a_net_has_the_papers_depth_and_step(name):
    settings = make_settings(**conditions("cpu")[name])
    model = ki.create_model(settings.model, (2, 2, 1), 10, units=2, **settings.overrides())
    assert ki.processing_depth(model) == 30
    blocks = ki.iterated_blocks(model)
    assert {block.activation for block in blocks} == {name.split(", ")[1]}
    # The original ResNet has the step h = 1.
    assert {block.step_size for block in blocks} == {0.1 if "NAIS" in name else 1.0}


def test_more_seeds_where_the_paper_gives_a_mean_of_ten():
    cases = MNIST_ABLATION.cases("cpu")
    counts = {name: sum(case.condition == name for case in cases) for name in conditions("cpu")}
    assert sorted(set(counts.values())) == [3, 10]
    assert [name for name, count in counts.items() if count == 10] == [
        "NAIS-Net, relu", "ResNet-SH, relu", "ResNet-SH-BN, relu",
    ]  # fmt: skip
    assert len(MNIST_ABLATION.cases("cpu", 2)) == 40


def fake_run(loss, settings):
    return types.SimpleNamespace(
        read_history=lambda epochs: [{"loss": 9.0}, {"loss": loss}],
        read_result=lambda: {
            "epochs": 2, "test_accuracy": 0.9, "train_accuracy": 0.95, "parameters": 7,
        },
        read_config=lambda: {"settings": make_settings(**settings)},
        last="a file",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "clipped_loss", "clips"),
    [(0.1, None, [0.0]), (2.5, 0.3, [0.0, 5.0]), (None, 0.3, [0.0, 5.0]), (None, None, [0.0, 5.0])],
)
def test_only_what_diverges_is_trained_with_clipped_gradients(
    loss, clipped_loss, clips, monkeypatch, tmp_path
):
    tried = []

    def train(case, folder, console):
        tried.append(case.settings["clip_norm"])
        value = loss if case.settings["clip_norm"] == 0 else clipped_loss
        return None if value is None else fake_run(value, case.settings)

    monkeypatch.setattr(mnist_ablation, "trained_or_diverged", train)
    monkeypatch.setattr(mnist_ablation.datasets, "load", lambda *args, **options: None)
    monkeypatch.setattr(mnist_ablation, "load_model_file", lambda file: None)
    monkeypatch.setattr(mnist_ablation, "describe", lambda model, data: {"losses": [1.0]})
    name, settings = next(iter(conditions("cpu").items()))
    found = measure(Case(name, settings, 0), tmp_path, None)
    assert tried == clips
    assert found["clipped"] == found["diverged"] == (len(clips) == 2)
    assert found["error"] == (None if loss is clipped_loss is None else pytest.approx(0.1))
    json.dumps(found, allow_nan=False)


def test_a_stable_net_of_known_weights_settles_where_it_must(monkeypatch):
    """Without a drive the state halves in each update: x(k) = u / 2^k for tanh near zero."""
    monkeypatch.setattr(mnist_ablation, "LONG", 40)
    monkeypatch.setattr(mnist_ablation, "LATER", (5, 20, 40))
    model = ki.create_model("resnet_sh_stable", (2, 2, 1), 3, units=4, max_unroll=5, shift=0.49)
    model.get_layer("block").activation = "tanh"
    embedding = model.get_layer("embedding")
    embedding.set_weights([1e-3 * np.eye(4), np.zeros(4)])
    R, b = model.get_layer("block").get_weights()
    model.get_layer("block").set_weights([0 * R, 0 * b])
    images = np.random.default_rng(0).random((6, 2, 2, 1)).astype("float32")
    states = mnist_ablation.states_by_depth(model, images)
    np.testing.assert_allclose(states[3], states[0] * 0.51**3, rtol=1e-3)
    long = mnist_ablation._long_run(model, images, states)
    assert long["motion"] == pytest.approx(0.49, rel=1e-3)
    # 0.51^3 is above a tenth, and 0.51^4 below.
    assert long["settled"] == [4, 4]
    first = np.linalg.norm(states[0], axis=-1).mean()
    assert long["norm"] == pytest.approx(first * 0.51**40, rel=1e-3)


def test_progress_starts_at_one_and_ends_at_its_lowest():
    np.testing.assert_allclose(progress(np.array([3.0, 2.0, 1.0, 2.0])), [1, 0.5, 0, 0.5])
    np.testing.assert_allclose(progress(np.array([1.0, 2.0])), [0, 0])


def test_the_figure_shows_both_activations(tmp_path):
    MNIST_ABLATION.draw(tmp_path / "ablation.png", made_up(**AS_THE_PAPER))
    with Image.open(tmp_path / "ablation.png") as image:
        assert image.width > 1000
        assert image.height > 600
        assert len(image.convert("RGB").getcolors(2**24)) > 100
