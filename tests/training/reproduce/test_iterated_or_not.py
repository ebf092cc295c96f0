"""The verdicts on iteration, on made-up accuracies; and what is measured, on a small net."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from training.reproduce.experiment import Case, Outcome, Results, Row
from training.reproduce.experiments import iterated_or_not
from training.reproduce.experiments.iterated_or_not import ITERATED, ITERATED_OR_NOT, PLAIN
from training.settings import make_settings


def results(accuracy, plain, adaptive, updates=1.7, seeds=3):
    rows = []
    for seed in range(seeds):
        shift = 0.0005 * seed
        fixed = [(1, accuracy - 0.02), (2, accuracy - 0.01), (3, accuracy), (updates, adaptive)]
        settings = [{"updates": u, "accuracy": a + shift} for u, a in fixed]
        rows.append(Row(ITERATED, seed, {"accuracy": accuracy + shift, "settings": settings}))
        rows.append(Row(PLAIN, seed, {"accuracy": plain + shift}))
    return Results(rows)


@pytest.mark.parametrize(
    ("found", "outcomes"),
    [
        (results(0.91, 0.91, 0.909), ["agrees"] * 3),
        (results(0.89, 0.90, 0.88), ["differs"] * 3),
        # The adaptive one is as accurate, but it makes more updates.
        (results(0.91, 0.90, 0.91, updates=1.9), ["agrees", "agrees", "differs"]),
    ],
)
def test_the_verdicts(found, outcomes):
    assert [claim.judge(found).outcome.value for claim in ITERATED_OR_NOT.claims] == outcomes


def test_the_evidence_names_the_numbers():
    verdicts = [claim.judge(results(0.91, 0.905, 0.909)) for claim in ITERATED_OR_NOT.claims]
    evidence = [verdict.evidence for verdict in verdicts]
    assert "91.05% ± 0.05% (3 seeds), less 90%" in evidence[0]
    assert "iterated 91.05% ± 0.05% (3 seeds), not iterated 90.55%" in evidence[1]
    assert "loss 0.10%" in evidence[2]
    assert "updates 57% ± 0% (3 seeds) of all: 3 of 3 nets" in evidence[2]


def test_one_seed_decides_nothing():
    found = results(0.91, 0.91, 0.909, seeds=1)
    outcomes = {claim.judge(found).outcome for claim in ITERATED_OR_NOT.claims}
    assert outcomes == {Outcome.UNDECIDABLE}


def test_the_figure(tmp_path):
    ITERATED_OR_NOT.draw(tmp_path / "figure.png", results(0.91, 0.905, 0.909))
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size[0] > 700


def test_the_two_nets_have_equal_convolutions():
    """Per stage four, on states of one size: the same number of multiplications."""
    settings = [make_settings(**each) for each in ITERATED_OR_NOT.conditions("cpu").values()]
    counts = []
    for each in settings:
        net = ki.create_model(each.model, (8, 8, 3), 10, filters=(4, 4), **each.overrides())
        blocks = ki.iterated_blocks(net)
        counts.append(sum(1 + block.max_unroll for block in blocks))
        assert {block.initial_state for block in blocks} == {"input"}
    assert counts == [8, 8]
    assert {(each.model, each.dataset) for each in settings} == {("nais_fast", "cifar10")}


def test_what_is_measured_of_a_trained_net(tmp_path, monkeypatch):
    monkeypatch.setattr(iterated_or_not, "CHOSEN_BY", 200)
    settings = {"model": "nais_dense", "max_unroll": 3, "limit_train": 256, "epochs": 1}
    console = Console(file=io.StringIO())
    measures = iterated_or_not.compute(Case(ITERATED, settings, 0), tmp_path, console)

    (run,) = tmp_path.iterdir()
    model = keras.models.load_model(run / "last.keras")
    data = datasets.load("digits", limit_train=256)
    *fixed, adaptive = measures["settings"]
    assert [each["updates"] for each in fixed] == [1, 2, 3]
    assert fixed[-1]["accuracy"] == pytest.approx(measures["accuracy"])
    # The training images keep to the share, at the threshold of the last setting.
    ki.set_depth(model, threshold=adaptive["threshold"])
    images = (data.train.images[:200].astype("float32") - data.mean) / data.std
    depth = ki.with_depth(model).predict(images, verbose=0)["depth"]
    assert np.mean(depth) <= 0.6 * 3
    test = (data.test.images.astype("float32") - data.mean) / data.std
    found = ki.with_depth(model).predict(test, verbose=0)
    assert np.mean(found["depth"]) == pytest.approx(adaptive["updates"])
    assert np.mean(found["logits"].argmax(axis=1) == data.test.labels) == pytest.approx(
        adaptive["accuracy"]
    )

    plain = iterated_or_not.compute(Case(PLAIN, settings, 0), tmp_path, console)
    assert plain == {key: measures[key] for key in plain}
    assert "settings" not in plain
