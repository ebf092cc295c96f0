"""The verdicts on adaptive depth, on made-up curves; and what is measured, on a small net."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from training.reproduce import depth_measures
from training.reproduce.experiment import Case, Outcome, Results, Row
from training.reproduce.experiments import adaptive_or_fixed
from training.reproduce.experiments.adaptive_or_fixed import ADAPTIVE_OR_FIXED, TRAINED, name_of
from training.settings import make_settings


def setting(updates, accuracy, milliseconds, threshold=None):
    return {
        "max_unroll": 10,
        "threshold": threshold,
        "updates": updates,
        "accuracy": accuracy,
        "share_at_limit": 0.0,
        "seconds": {"1": milliseconds / 1000, "64": milliseconds / 1000},
    }


def results(by_threshold, trained):
    """Return three seeds: a net whose accuracy falls by 2 points with each update that is missing.

    Each fixed update takes a millisecond.
    """
    rows = []
    for seed in range(3):
        shift = 0.001 * seed
        fixed = [setting(k, 0.7 - 0.02 * (10 - k) + shift, k) for k in (1, 5, 10)]
        stopped = [setting(u, a + shift, ms, threshold=1 / u) for u, a, ms in by_threshold]
        full = {"accuracy": 0.7 + shift, "settings": fixed + stopped}
        rows.append(Row(name_of(10), seed, full))
        rows += [Row(name_of(k), seed, {"accuracy": trained + shift}) for k in TRAINED if k != 10]
    return Results(rows)


# Better than fixed depth at equal updates, without any additional time.
GOOD = [(3, 0.698, 3), (6, 0.7, 6)]
# Worse than fixed depth, and slower.
BAD = [(3, 0.5, 6), (6, 0.55, 12)]
# At equal updates as accurate as fixed depth or more, but slow.
SLOW = [(3, 0.698, 12), (6, 0.7, 12)]


@pytest.mark.parametrize(
    ("by_threshold", "trained", "outcomes"),
    [
        (GOOD, 0.6, ["agrees"] * 7),
        (BAD, 0.6, ["differs", "differs", "differs", *["differs"] * 4]),
        # A net that was trained with one update is as good as the one of ten.
        (GOOD, 0.72, ["agrees", "differs", "agrees", *["agrees", "differs"] * 2]),
        (SLOW, 0.6, ["agrees", "agrees", "differs", *["differs"] * 4]),
    ],
)
def test_the_verdicts(by_threshold, trained, outcomes):
    found = results(by_threshold, trained)
    assert [claim.judge(found).outcome.value for claim in ADAPTIVE_OR_FIXED.claims] == outcomes


def test_the_evidence_names_the_numbers():
    verdict = ADAPTIVE_OR_FIXED.claims[0].judge(results(GOOD, 0.6))
    # 0.698 in place of 0.56, and 0.7 in place of 0.62.
    assert "mean gain +10.90%" in verdict.evidence
    verdict = ADAPTIVE_OR_FIXED.claims[-1].judge(results(GOOD, 0.6))
    assert "threshold 3.00 ± 0.00 (3 seeds); trained 10.00" in verdict.evidence
    assert "ratio 0.30" in verdict.evidence


def test_one_seed_decides_nothing():
    found = Results([row for row in results(GOOD, 0.6).rows if row.seed == 0])
    outcomes = {claim.judge(found).outcome for claim in ADAPTIVE_OR_FIXED.claims}
    assert outcomes == {Outcome.UNDECIDABLE}


def test_the_figure(tmp_path):
    ADAPTIVE_OR_FIXED.draw(tmp_path / "adaptive.png", results(GOOD, 0.6))
    with Image.open(tmp_path / "adaptive.png") as image:
        assert image.size[0] > 1000


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_every_condition_is_a_training(scale):
    for name, settings in ADAPTIVE_OR_FIXED.conditions(scale).items():
        run = make_settings(**settings)
        assert name == name_of(run.overrides()["max_unroll"])
        assert (run.dataset, run.threshold) == ("cifar10", None)


def test_what_is_measured_of_a_trained_net(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptive_or_fixed, "TIMED", 8)
    monkeypatch.setattr(adaptive_or_fixed, "BATCH_SIZES", (4,))
    monkeypatch.setattr(adaptive_or_fixed, "FIXED", (1, 10))
    monkeypatch.setattr(adaptive_or_fixed, "THRESHOLDS", (1e6, 1e-30))
    settings = {"model": "nais_dense", "max_unroll": 10, "limit_train": 256, "epochs": 1}
    console = Console(file=io.StringIO())
    measures = adaptive_or_fixed.compute(Case("made up", settings, 0), tmp_path, console)

    (run,) = tmp_path.iterdir()
    model = keras.models.load_model(run / "last.keras")
    data = datasets.load("digits", limit_train=256)
    images = (data.test.images.astype("float32") - data.mean) / data.std
    found = [(s["max_unroll"], s["updates"], s["accuracy"]) for s in measures["settings"]]
    expected = []
    for updates in (1, 10):
        ki.set_depth(model, max_unroll=updates)
        predictions = np.argmax(model.predict(images, verbose=0), axis=1)
        expected.append(np.mean(predictions == data.test.labels))
    one, ten = (pytest.approx(accuracy) for accuracy in expected)
    # A huge threshold stops each image after its first update, a tiny one none.
    assert found == [(1, 1, one), (10, 10, ten), (10, 1, one), (10, 10, ten)]
    assert measures["accuracy"] == ten
    assert all(s["seconds"]["4"] > 0 for s in measures["settings"])


def test_times_are_medians_of_an_image(monkeypatch):
    model = ki.create_model("nais_dense", (2, 2, 1), 2, units=3, max_unroll=4)
    clock = iter(range(1000))
    monkeypatch.setattr(depth_measures.time, "perf_counter", lambda: next(clock) ** 2)
    settings = [{"max_unroll": 1, "threshold": None}, {"max_unroll": 4, "threshold": 0.1}]
    images = np.zeros((7, 2, 2, 1), np.float32)
    found = depth_measures.time_settings(model, images, settings, batch_size=3, rounds=3)
    # The clock's n-th interval takes 4n + 1; three rounds of two settings follow the untimed one.
    assert found == [pytest.approx((4 * 4 + 1) / 6), pytest.approx((4 * 5 + 1) / 6)]
    (block,) = ki.iterated_blocks(model)
    assert (block.max_unroll, block.threshold) == (4, None)
