"""The experiment on stability: measures of small blocks and nets, verdicts on made-up ones."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_iterconv as ki
from training.reproduce import stable_nets
from training.reproduce.experiment import Outcome, Results, Row
from training.reproduce.experiments import stability
from training.reproduce.experiments.stability import STABILITY
from training.reproduce.experiments.stability_claims import CLAIMS
from training.reproduce.readouts import states_by_depth
from training.reproduce.stable_blocks import draw_setting
from training.reproduce.stable_nets import expansions


def made_up(name, kind):
    """Return measures of a condition that agree with every claim."""
    curves = {"distance": [1.0, 0.5, 0.2], "stated": [1.0, 0.6, 0.3], "proven": [1.0, 0.8, 0.6]}
    tanh = "tanh" in name
    pair = {"stated": 1.0, "proven": 0.5}
    by_kind = {
        "tied": {
            "floor": 0.1, "stated_rate": 0.9, "proven_rate": 0.99, "motion": 1e-16,
            "start_dependence": 1e-15 if tanh else 0.5, "expansion": 1.0, "rate": pair,
            "perturbed": pair if tanh else None, "invariant": pair if tanh else None,
            "perturbed_floor": 0.1, "invariant_floor": 0.2,
            "practical": None if tanh else 0.9, "curves": curves,
            "closed_form": {"corrected": 1e-12, "printed": 1e-12} if "dense" in name else None,
        },
        "untied": {
            "expansion": 1.0, "growth": 1.1, "motion": 1e-9, "curves": {"motion": [1.0, 0.1]},
        },
        "jacobians": {
            "radius": 0.9, "drawn_radius": 0.99, "norm": 0.9 if "conv" in name else None,
            "lemma": 1e-12 if "conv" in name else None,
        },
        "oscillation": {
            "eigenvalues": [-0.9, 0.9], "curve": [1.0, -0.5, 0.2], "last": 0.01,
            "turns": 5 if "relaxed" in name else 0,
        },
        "net": {
            "blocks": 2, "held": 2, "proven": 2, "expansion": 1.0, "bound": 3.0,
            "largest_ratio": 2.0,
        },
    }  # fmt: skip
    return by_kind[kind]


@pytest.fixture
def rows():
    conditions = STABILITY.single("cpu")
    return [Row(name, 0, made_up(name, given["measure"])) for name, given in conditions.items()]


def verdicts(rows):
    return {claim.text: claim.judge(Results(rows)).outcome for claim in CLAIMS}


def test_blocks_as_the_paper_states_agree(rows):
    assert set(verdicts(rows).values()) == {Outcome.AGREES}


def test_without_results_nothing_is_decided():
    assert set(verdicts([]).values()) == {Outcome.UNDECIDABLE}


@pytest.mark.parametrize(
    ("condition", "change", "differing"),
    [
        ("dense, Jacobians", {"drawn_radius": 1.0}, "The Jacobian of an update"),
        ("convolutional, Jacobians", {"lemma": 1e-3}, "A convolution is a matrix"),
        ("convolutional, Jacobians", {"norm": 1.01}, "Algorithm 2 keeps"),
        ("dense, tanh, mild drive", {"motion": 1e-3}, "With tanh the state converges"),
        ("dense, tanh, mild drive", {"start_dependence": 1e-3}, "With tanh the state converges"),
        ("dense, relu, mild drive", {"motion": 1e-3}, "With ReLU the state converges"),
        ("dense, relu, mild drive", {"start_dependence": 0.0}, "With ReLU the state converges"),
        (
            "dense, tanh, mild drive",
            {"closed_form": {"corrected": 1e-12, "printed": 2.0}},
            "With tanh the steady state is a linear",
        ),
        (
            "dense, tanh, mild drive",
            {"closed_form": {"corrected": 2.0, "printed": 1e-12}},
            "With tanh the steady state is an affine",
        ),
        (
            "convolutional, relu, strong drive",
            {"rate": {"stated": 1.1, "proven": 1.0}},
            "The distance to the steady state falls at the rate of the spectral",
        ),
        (
            "convolutional, relu, strong drive",
            {"rate": {"stated": 1.0, "proven": 1.1}},
            "The distance to the steady state falls at the rate that follows",
        ),
        (
            "dense, tanh, strong drive",
            {"invariant": {"stated": 1.1, "proven": 1.0}},
            "With tanh and a perturbed input, a state within",
        ),
        (
            "dense, tanh, strong drive",
            {"perturbed": {"stated": 1.0, "proven": 1.1}},
            "With tanh and a perturbed input, the distance",
        ),
        ("dense, relu, mild drive", {"practical": 1.1}, "With ReLU and a perturbed input"),
        ("dense, relu, mild drive", {"expansion": 1.001}, "No update of a tied block"),
        ("delta default", {"turns": 3}, "With delta = 1 - 2 epsilon"),
        ("delta relaxed", {"turns": 0}, "With the relaxed delta"),
        ("delta relaxed", {"last": -1.1}, "With the relaxed delta"),
        ("dense, untied", {"expansion": 1.1}, "No update of an untied dense"),
        ("convolutional, untied", {"motion": 1e-3}, "The state of an untied block"),
        ("zoo, nais_mnist", {"held": 1}, "The trained NAIS-Nets"),
        ("zoo, pcr_w8_mnist", {"expansion": 1.01}, "No net of the zoo"),
        ("zoo, pcr_w8_mnist", {"largest_ratio": 3.1}, "No net of the zoo"),
    ],
)
def test_one_exception_refutes_a_claim(rows, condition, change, differing):
    assert condition in {row.condition for row in rows}
    changed = [
        row._replace(measures={**row.measures, **change}) if row.condition == condition else row
        for row in rows
    ]
    texts = [text for text, found in verdicts(changed).items() if found == Outcome.DIFFERS]
    assert len(texts) == 1
    assert texts[0].startswith(differing)


@pytest.mark.parametrize(
    ("name", "broken"),
    [("dense, tanh, strong drive", True), ("dense, relu, mild drive", False)],
)
def test_a_saturated_tanh_breaks_the_stated_rate_and_keeps_the_proven_one(
    name, broken, monkeypatch
):
    monkeypatch.setattr(stability, "UPDATES", 60)
    monkeypatch.setattr(stability, "LONG", 1500)
    settings = {k: v for k, v in STABILITY.single("cpu")[name].items() if k != "measure"}
    found = stability.measure_tied(draw_setting(**settings))
    json.dumps(found, allow_nan=False)
    assert (found["rate"]["stated"] > 2) == broken
    assert found["rate"]["proven"] <= 1 + 1e-9
    assert found["expansion"] <= 1 + 1e-9
    if broken:
        assert found["perturbed"]["proven"] <= 1 + 1e-9
        assert found["invariant"]["proven"] <= 1 + 1e-9
        assert found["closed_form"]["corrected"] < 1e-6 < found["closed_form"]["printed"]
    else:
        assert found["start_dependence"] > 0.1


def test_untied_convolutions_do_not_expand_and_do_not_settle(monkeypatch):
    monkeypatch.setattr(stability, "UPDATES", 20)
    found = stability.measure_untied(draw_setting("convolutional", "tanh", "mild", False, 20))
    assert found["expansion"] <= 1
    assert found["motion"] > 0.01
    assert len(found["curves"]["motion"]) == 20


@pytest.mark.parametrize(
    ("name", "options", "blocks"),
    [
        ("nais10", {"blocks": 1, "filters": (4, 4), "max_unroll": 2}, 2),
        ("nais_dense", {"units": 6, "max_unroll": 3}, 1),
        ("pcr_w8", {"blocks": 1, "width": 2}, 3),
        ("resnet_sh", {"units": 4, "max_unroll": 2}, 0),
    ],
)
def test_updates_of_small_nets_keep_to_their_factors(name, options, blocks):
    model = ki.create_model(name, (8, 8, 1), 3, **options)
    if "pcr" in name:
        model.converge_caps()
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")
    found = expansions(model, images)
    assert len(found) == blocks
    assert all(0.05 < share <= 1.001 for share in found.values())


def test_updates_are_tried_along_the_trajectory_of_the_images(monkeypatch):
    model = ki.create_model("nais_dense", (8, 8, 1), 3, units=6, max_unroll=3)
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")
    tried = []
    monkeypatch.setattr(
        stable_nets, "_expansion", lambda layer, row, state, inputs, k: tried.append(state) or k
    )
    assert expansions(model, images) == {"block": 2}
    np.testing.assert_allclose(np.stack(tried), states_by_depth(model, images)[:-1], atol=1e-6)


def test_an_update_beyond_its_factor_is_seen():
    model = ki.create_model("nais_dense", (8, 8, 1), 3, units=6, max_unroll=3, step_size=1.0)
    block = model.get_layer("block")
    block.R.assign(3 * np.eye(6))
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")
    # |1 - 9.01| where a unit is active.
    assert max(expansions(model, images).values()) > 4


def test_a_net_of_the_zoo_is_measured_beside_its_certificate(monkeypatch):
    model = ki.create_model("nais_dense", (28, 28, 1), 10, units=4, max_unroll=2)
    monkeypatch.setattr(stable_nets.ki, "load_pretrained", lambda name, folder: model)
    monkeypatch.setattr(stable_nets.datasets, "load", lambda name: _Data)
    found = stable_nets.measure_net("nais_mnist")
    json.dumps(found, allow_nan=False)
    assert (found["blocks"], found["held"], found["proven"]) == (1, 1, 1)
    assert found["expansion"] <= 1.001
    assert 0 < found["largest_ratio"] <= found["bound"]


class _Data:
    from keras_iterconv.datasets import Split

    test = Split(
        np.random.default_rng(0).integers(0, 255, (8, 28, 28, 1)).astype("uint8"),
        np.zeros(8, int),
    )


def test_the_figure_shows_the_bounds(rows, tmp_path):
    STABILITY.draw(tmp_path / "stability.png", Results(rows))
    with Image.open(tmp_path / "stability.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(2**24)) > 100


def test_every_condition_is_computed_once():
    cases = STABILITY.cases("cpu")
    assert {case.seed for case in cases} == {0}
    assert len(cases) == len(STABILITY.single("cpu")) == len(STABILITY.cases("paper"))
