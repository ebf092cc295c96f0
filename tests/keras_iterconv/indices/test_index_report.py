"""Reports: intervals against SciPy's bootstrap, and what is shown and stored of the numbers."""

import json

import numpy as np
import pytest
import scipy.stats

import keras_iterconv as ki
from keras_iterconv.indices.index_report import StageErrors, compute_indices, make_report

INDICES = ("convergence", "recurrence", "divergence")
CHANCE = 0.9


def is_wrong(samples=400, blocks=4, seed=0, rates=None):
    """Draw which samples each perturbation gets wrong; mistakes go together within a sample."""
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(size=samples)
    early, left_out, repeated = rates or (
        np.linspace(0.7, 0.1, blocks),
        np.linspace(0.5, 0.3, blocks),
        np.linspace(0.15, 0.4, 16),
    )
    left_out = np.asarray(left_out)
    return StageErrors(
        *(
            difficulty + rng.normal(0, 0.1, (len(rate), samples)) < np.asarray(rate)[:, None]
            for rate in (early, left_out, repeated)
        )
    )


def by_definition(early, left_out, repeated, chance=CHANCE):
    full, last = early[-1], left_out[-1]
    return (
        1 - sum((e - full) / (chance - full) for e in early[:-1]) / (len(early) - 1),
        1 - sum((d - last) / (chance - last) for d in left_out[:-1]) / (len(left_out) - 1),
        sum((e - full) / (chance - full) for e in repeated) / len(repeated),
    )


def make(stages=2, resamples=500, seed=0, blocks=4, **settings):
    """Make a report of stages of one net: they share the intact net's errors."""
    first = is_wrong(blocks=blocks, **settings)
    wrong = [first]
    for s in range(1, stages):
        other = is_wrong(blocks=blocks, seed=s)
        early = other.early_readout.copy()
        early[-1] = first.early_readout[-1]
        wrong.append(other._replace(early_readout=early))
    names = [f"stage{s}" for s in range(stages)]
    return make_report(names, wrong, CHANCE, resamples, seed), wrong


def test_indices_are_those_of_the_definitions():
    report, wrong = make()
    for s, stage in enumerate(wrong):
        means = [curve.mean(axis=1) for curve in stage]
        for curve, mean in zip(report.errors[s], means, strict=True):
            np.testing.assert_allclose(curve, mean)
        for index, value in zip(INDICES, by_definition(*means), strict=True):
            assert getattr(report, index)[s] == pytest.approx(value)
    assert report.error == wrong[0].early_readout[-1].mean()
    assert report.samples == 400
    assert report.reasons == [{}, {}]


def test_curves_of_many_resamples_are_computed_as_one_by_one():
    rng = np.random.default_rng(0)
    curves = [rng.uniform(0, 0.8, (7, n)) for n in (4, 4, 16)]
    got = compute_indices(StageErrors(*curves), CHANCE)
    expected = [by_definition(*(curve[i] for curve in curves)) for i in range(7)]
    np.testing.assert_allclose(np.transpose(got), expected)


@pytest.mark.parametrize("number", range(3))
def test_intervals_agree_with_scipy_s_bootstrap(number):
    report, wrong = make(stages=1, resamples=3000)
    stacked = np.concatenate(wrong[0]).astype(float)

    def index(samples, axis):
        assert axis == -1
        means = samples.mean(axis=-1)  # [curves, resamples] or [curves]
        return by_definition(means[:4], means[4:8], means[8:])[number]

    def of_numbers(picks, axis=-1):
        return index(stacked[:, picks.astype(int)], axis)

    expected = scipy.stats.bootstrap(
        (np.arange(400),), of_numbers, n_resamples=3000, method="percentile",
        rng=np.random.default_rng(1), vectorized=True, batch=100,
    )  # fmt: skip
    got = report.intervals[INDICES[number]][0]
    # The Monte-Carlo error of a 2.5% quantile of 3000 draws is a twelfth of their deviation
    # at the most; four of its standard errors for two of them.
    tolerance = 4 * np.sqrt(2) * expected.standard_error * 0.05
    np.testing.assert_allclose(got, expected.confidence_interval, rtol=0, atol=tolerance)
    assert got[0] < getattr(report, INDICES[number])[0] < got[1]


def test_intervals_hold_the_true_index_about_as_often_as_they_say():
    # Independent mistakes of known rates: the true curves are the rates.
    rates = [np.array(r) for r in ([0.6, 0.4, 0.2], [0.5, 0.3, 0.4], [0.3] * 16)]
    truth = by_definition(*rates)
    rng = np.random.default_rng(0)
    held = np.zeros(3)
    for trial in range(120):
        wrong = StageErrors(*(rng.uniform(size=(len(r), 300)) < r[:, None] for r in rates))
        report = make_report(["s"], [wrong], CHANCE, 200, trial)
        for i, index in enumerate(INDICES):
            low, high = report.intervals[index][0]
            held[i] += low <= truth[i] <= high
    # 114 expected; four binomial deviations, and the bootstrap's own bias.
    assert (held > 104).all()
    assert (held < 120).any()


def test_a_seed_repeats_and_another_differs():
    one, again, other = (make(seed=seed)[0] for seed in (3, 3, 4))
    assert one.to_dict() == again.to_dict()
    for index in INDICES:
        assert (one.intervals[index] != other.intervals[index]).any()
        np.testing.assert_array_equal(getattr(one, index), getattr(other, index))


@pytest.mark.parametrize("resamples", [1, 99, 100, 101, 250])
def test_any_number_of_resamples(resamples):
    report, _ = make(resamples=resamples)
    low, high = report.intervals["convergence"][0]
    assert low <= high
    assert (low == high) == (resamples == 1)


def test_intervals_of_equal_samples_have_no_width():
    wrong = StageErrors(np.ones((3, 50), bool), np.zeros((3, 50), bool), np.zeros((16, 50), bool))
    wrong.early_readout[-1] = False
    report = make_report(["s"], [wrong], CHANCE, 100, 0)
    np.testing.assert_allclose(report.intervals["convergence"][0], 1 - 1 / 0.9, atol=1e-6)
    np.testing.assert_allclose(report.intervals["recurrence"][0], 1)
    np.testing.assert_allclose(report.intervals["divergence"][0], 0)


def at_chance():
    rates = (np.full(4, CHANCE), np.full(4, CHANCE), np.full(16, CHANCE))
    return make(stages=2, rates=rates)[0]


def walk(value):
    """Yield all that lies in nested lists and dictionaries."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from walk(part)
    else:
        yield value


def test_the_dictionary_is_json_and_says_the_same():
    report, _ = make()
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert stored["stages"] == report.stages
    assert (stored["samples"], stored["error"]) == (report.samples, report.error)
    assert stored["chance"] == CHANCE
    for index in INDICES:
        np.testing.assert_array_equal(stored[index], getattr(report, index))
        np.testing.assert_array_equal(stored["intervals"][index], report.intervals[index])
        assert stored["mean"][index] == pytest.approx(np.mean(stored[index]))
    for curves, errors in zip(stored["errors"], report.errors, strict=True):
        for field in ("early_readout", "left_out", "repeated"):
            np.testing.assert_array_equal(curves[field], getattr(errors, field))
    assert None not in walk(stored)


def test_the_dictionary_has_none_for_what_is_undefined():
    report = at_chance()
    assert np.isnan(report.convergence).all()
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    for index in INDICES:
        assert stored[index] == [None, None]
        assert stored["intervals"][index] == [[None, None]] * 2
        assert stored["mean"][index] is None
        assert all(index in reasons for reasons in stored["reasons"])


def test_the_table_holds_the_numbers():
    report, _ = make()
    text = str(report)
    assert "400 samples" in text
    assert f"error {100 * report.error:.2f}%" in text
    assert "chance 90.00%" in text
    assert "95% intervals" in text
    for s, name in enumerate(report.stages):
        (line,) = (line for line in text.splitlines() if name in line)
        for index in INDICES:
            low, high = report.intervals[index][s]
            assert f"{getattr(report, index)[s]:.3f} [{low:.3f}, {high:.3f}]" in line
    (line,) = (line for line in text.splitlines() if "mean" in line)
    for index in INDICES:
        assert f"{np.mean(getattr(report, index)):.3f}" in line


def test_the_table_of_one_stage_has_no_mean():
    assert "mean" not in str(make(stages=1)[0])


def test_the_table_says_why_there_is_no_number():
    text = " ".join(str(at_chance()).split())
    assert "the net's error is not two standard errors better than chance" in text
    assert "nan" not in text.lower().replace("chance", "")


@pytest.mark.parametrize("name", ["[bold]", "stage[x]", "block/group[/a]"])
def test_the_table_shows_names_as_they_are(name):
    _, wrong = make(stages=1)
    assert name in str(make_report([name], wrong, CHANCE, 10, 0))


def test_a_stage_of_one_block_beside_others():
    _, wrong = make(stages=1)
    one = StageErrors(wrong[0].early_readout[-1:], wrong[0].left_out[:1], wrong[0].repeated)
    report = make_report(["many", "one"], [*wrong, one], CHANCE, 50, 0)
    assert np.isfinite(report.convergence[0])
    assert np.isnan(report.convergence[1])
    assert set(report.reasons[1]) == set(INDICES)
    assert report.reasons[0] == {}
    stored = report.to_dict()
    assert stored["mean"]["convergence"] is None
    json.dumps(stored, allow_nan=False)


def test_it_is_a_public_class():
    assert isinstance(make()[0], ki.IndexReport)
