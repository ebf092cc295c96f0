"""Verdicts: intervals against SciPy, signs, margins, and too few values."""

import numpy as np
import pytest
import scipy.stats

from training.reproduce.experiment import Outcome, Verdict
from training.reproduce.verdicts import (
    combine,
    interval,
    judge_all,
    judge_less_spread,
    judge_not_worse,
    judge_share,
    judge_sign,
    paired,
    show,
)

CLEAR = np.array([1.0, 1.1, 0.9, 1.05])


def test_the_interval_is_that_of_a_t_test():
    low, high = interval(CLEAR)
    expected = scipy.stats.ttest_1samp(CLEAR, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    ("differences", "expected", "margin", "outcome"),
    [
        (CLEAR, 1, 0, Outcome.AGREES),
        (CLEAR, -1, 0, Outcome.DIFFERS),
        (-CLEAR, -1, 0, Outcome.AGREES),
        (CLEAR, 1, 0.5, Outcome.AGREES),
        (CLEAR, 1, 1.0, Outcome.UNDECIDABLE),
        (CLEAR, 1, 2.0, Outcome.DIFFERS),
        ([1.0, -1.0, 0.5], 1, 0, Outcome.UNDECIDABLE),
        # Two seeds decide nothing, however clear they look.
        ([1.0, 1.0], 1, 0, Outcome.UNDECIDABLE),
        ([], 1, 0, Outcome.UNDECIDABLE),
        ([0.0, 0.0, 0.0], 1, 0, Outcome.UNDECIDABLE),
    ],
)
def test_signs(differences, expected, margin, outcome):
    assert judge_sign(differences, expected, "numbers", margin).outcome == outcome


@pytest.mark.parametrize(
    ("differences", "tolerance", "outcome"),
    [
        ([0.001, -0.001, 0.0], 0.01, Outcome.AGREES),
        ([0.05, 0.051, 0.049], 0.01, Outcome.DIFFERS),
        ([0.0, 0.02, 0.01], 0.01, Outcome.UNDECIDABLE),
    ],
)
def test_no_worse_than_a_tolerance(differences, tolerance, outcome):
    verdict = judge_not_worse(np.array(differences), tolerance, "numbers")
    assert verdict.outcome == outcome
    # The numbers are shown as they are, not with the sign that decides.
    assert f"mean {np.mean(differences):+.3g} [" in verdict.evidence


@pytest.mark.parametrize(
    ("held", "for_all", "for_share"),
    [
        ([True] * 3, Outcome.AGREES, Outcome.AGREES),
        ([True, True, False], Outcome.DIFFERS, Outcome.UNDECIDABLE),
        ([True, True, False, False], Outcome.DIFFERS, Outcome.DIFFERS),
        ([True], Outcome.AGREES, Outcome.UNDECIDABLE),
        ([False], Outcome.DIFFERS, Outcome.UNDECIDABLE),
        ([], Outcome.UNDECIDABLE, Outcome.UNDECIDABLE),
    ],
)
def test_what_holds_for_each(held, for_all, for_share):
    assert judge_all(held, "numbers").outcome == for_all
    assert judge_share(held, "numbers").outcome == for_share


@pytest.mark.parametrize(
    ("factor", "count", "outcome"),
    [
        (0.1, 10, Outcome.AGREES),
        (1.1, 10, Outcome.UNDECIDABLE),
        (10, 10, Outcome.DIFFERS),
        (0.3, 3, Outcome.UNDECIDABLE),
        (0.001, 2, Outcome.UNDECIDABLE),
        (0, 10, Outcome.UNDECIDABLE),
    ],
)
def test_variances_are_compared_by_the_f_distribution(factor, count, outcome):
    others = np.random.default_rng(0).normal(size=count)
    assert judge_less_spread(factor * others, others, "numbers").outcome == outcome


def test_the_interval_of_a_ratio_of_variances_covers_the_true_one():
    """Of 400 pairs of samples of one distribution, about 1 in 20 is judged wrongly."""
    rng = np.random.default_rng(0)
    found = [judge_less_spread(*rng.normal(size=(2, 6)), "").outcome for _ in range(400)]
    assert 8 <= sum(outcome != Outcome.UNDECIDABLE for outcome in found) <= 32


def test_pairs_are_those_of_common_seeds():
    np.testing.assert_allclose(paired({0: 3.0, 1: 5.0, 4: 1.0}, {1: 1.0, 0: 1.0, 2: 9.0}), [2, 4])


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        ("agrees agrees", Outcome.AGREES),
        ("agrees undecidable", Outcome.UNDECIDABLE),
        ("agrees undecidable differs", Outcome.DIFFERS),
    ],
)
def test_a_claim_of_parts_agrees_where_all_do(outcomes, whole):
    verdicts = [Verdict(Outcome[name.upper()], name) for name in outcomes.split()]
    assert combine(verdicts) == Verdict(whole, "; ".join(outcomes.split()))


def test_values_as_text():
    assert show([0.5, 0.7]) == "0.600 ± 0.141 (2 seeds)"
    assert show([0.25], ".1%") == "25.0% (one seed)"
    assert show([]) == "no value"


def test_a_claim_without_parts_is_undecidable():
    assert combine([]) == Verdict(Outcome.UNDECIDABLE, "no results")
