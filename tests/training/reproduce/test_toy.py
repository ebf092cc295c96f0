"""The toy experiment: its measures, its verdicts on made-up nets, its figure."""

import json

import numpy as np
import pytest
from PIL import Image

from training.reproduce import inverse_problem
from training.reproduce.experiment import Case, Outcome, Results, Row
from training.reproduce.experiments import toy
from training.reproduce.experiments.toy import CLAIMS, TOY, measurements, near_identity

STEPS = "With a linear forward model, every step size up to 1 converges."
EXTRA = np.arange(17)


def made_up(**changes):
    """Return results of three seeds that agree with the paper, but for some changes."""
    curves = {
        "feed-forward": np.r_[2.0, np.full(7, 1.0), 0.003],
        "ResNet": np.r_[np.linspace(0.9, 0.1, 8), 0.002],
        "recurrent": np.r_[np.linspace(0.9, 0.1, 8), 0.004],
        "algorithm": 0.5 ** np.arange(9),
        **changes.pop("early", {}),
    }
    without = {"feed-forward": 1.0, "ResNet": 0.05, "recurrent": 0.1, **changes.pop("without", {})}
    repeated = {
        "algorithm": 0.5 ** (8 + EXTRA),
        **dict.fromkeys(toy.RESIDUAL, 0.004 + 0.1 * EXTRA),
        **changes.pop("repeated", {}),
    }
    assert not changes
    rows = []
    for name, early in curves.items():
        for seed in range(1 if name == "algorithm" else 3):
            errors = {
                "early": list(early),
                "left_out": [[1.0] * 7 + [without.get(name, 0.01) * (1 + 0.01 * seed)]] * 8,
                "repeated": list(repeated.get(name, 1.0 + EXTRA)),
            }
            paths = {
                "early": np.full((9, 2, 2), 0.5).tolist(),
                "left_out": np.full((8, 8, 2, 2), 0.5).tolist(),
                "repeated": np.full((17, 2, 2), 0.5).tolist(),
            }
            measures = {"errors": errors, "paths": paths, "chance": 0.76}
            if name == "algorithm":
                measures["step_sizes"] = [[1.5, 0.4, 1e-9], [4.0, 0.4, 1e-3]]
            rows.append(Row(name, seed, measures))
    return Results(rows)


def verdicts(results):
    return {claim.text: claim.judge(results).outcome for claim in CLAIMS}


def test_nets_as_those_of_the_paper_agree():
    assert set(verdicts(made_up()).values()) == {Outcome.AGREES}


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"early": {"algorithm": np.ones(9)}}, []),
        ({"repeated": {"algorithm": np.full(17, 0.1)}}, ["The error-corrective algorithm"]),
        ({"early": {"recurrent": np.full(9, 0.1)}}, ["All trained", "Early readouts of the rec"]),
        ({"early": {"feed-forward": np.full(9, 0.01)}}, ["Early readouts of the feed-forward"]),
        ({"early": {"ResNet": np.r_[0.5, np.full(8, 0.01)]}}, ["Early readouts of the ResNet"]),
        ({"without": {"ResNet": 0.5}}, ["Leaving out the fourth block has"]),
        (
            {"without": {"ResNet": 2.0}},
            ["Leaving out the fourth block has", "Leaving out the fourth block changes"],
        ),
        ({"repeated": {"ResNet": 0.01 * EXTRA}}, ["Repeating the last block"]),
        ({"repeated": {"ResNet": 0.004 * 1.6**EXTRA}}, ["The repeated last block"]),
        ({"repeated": {"ResNet": [*range(16), None]}}, ["The repeated last block"]),
    ],
)
def test_each_claim_can_differ(changes, differing):
    found = verdicts(made_up(**changes))
    texts = [text for text, outcome in found.items() if outcome == Outcome.DIFFERS]
    assert len(texts) == len(differing)
    assert all(map(str.startswith, texts, differing))


def test_without_results_nothing_is_decided():
    assert set(verdicts(Results([])).values()) == {Outcome.UNDECIDABLE}


def test_nets_near_the_identity_are_told_but_do_not_decide():
    rows = [*made_up(early={"ResNet": np.ones(9)}).rows]
    near = made_up().rows
    rows += [r._replace(condition=near_identity("ResNet")) for r in near if r.condition == "ResNet"]
    (claim,) = [claim for claim in CLAIMS if "of the ResNet network" in claim.text]
    verdict = claim.judge(Results(rows))
    assert verdict.outcome == Outcome.DIFFERS
    assert verdict.evidence.endswith("0 of 3 nets, near the identity 3 of 3")


def test_the_algorithm_is_measured_and_refutes_what_the_paper_says_of_step_sizes(tmp_path):
    (case,) = [case for case in TOY.cases("cpu") if case.condition == "algorithm"]
    measures = toy.measure(case, tmp_path, None)
    json.dumps(measures, allow_nan=False)
    results = Results([Row("algorithm", 0, measures)])
    found = {claim.text: claim.judge(results) for claim in CLAIMS}
    assert found["The error-corrective algorithm converges to the true z."].outcome == (
        Outcome.AGREES
    )
    # The error is multiplied by 1 - factor * size, so that it converges below a product of 2.
    assert found[STEPS].outcome == Outcome.DIFFERS
    assert found[STEPS].evidence.endswith("2.5 · 1, 4 · 0.7, 4 · 1")
    for factor, size, left in measures["step_sizes"]:
        assert left == pytest.approx(abs(1 - factor * size) ** 100, rel=1e-4, abs=1e-12)


def test_a_trained_net_is_measured_with_its_settings(monkeypatch, tmp_path):
    asked = []

    def untrained(kind, seed, **settings):
        asked.append((kind, seed, settings))
        return inverse_problem.make_net(kind, seed, blocks=2)

    monkeypatch.setattr(toy, "train_net", untrained)
    settings = toy.conditions("cpu")[near_identity("recurrent")]
    measures = toy.measure(Case("any", settings, 4), tmp_path, None)
    assert asked == [("recurrent", 4, {"update_scale": 0.1})]
    expected = inverse_problem.measure_net(inverse_problem.make_net("recurrent", 4, blocks=2))
    np.testing.assert_allclose(measures["errors"]["left_out"], expected.left_out, rtol=1e-5)
    assert np.shape(measures["paths"]["repeated"]) == (17, 2, 2)


def test_every_condition_is_a_case_of_each_seed():
    cases = TOY.cases("cpu")
    assert len(cases) == 5 * 5 + 1
    assert TOY.cases("paper") == cases


def test_the_figure_shows_the_first_seeds_paths_and_all_errors(tmp_path):
    results = made_up()
    measured = measurements(results)
    assert measured.errors["resnet"].early.shape == (3, 9)
    assert measured.errors["algorithm"].repeated.shape == (1, 17)
    TOY.draw(tmp_path / "toy.png", results)
    with Image.open(tmp_path / "toy.png") as image:
        assert image.width > 1000
    with pytest.raises(LookupError, match="no results of recurrent"):
        measurements(Results([row for row in results.rows if row.condition != "recurrent"]))
