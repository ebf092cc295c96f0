"""Medians of ratios in closed form, and the bootstrap against SciPy's."""

import numpy as np
import pytest
import scipy.stats

from benchmarks.harness.intervals import speedup
from benchmarks.harness.measured import Measured


def test_a_speedup_is_taken_round_by_round():
    # The ratio of the medians would be 4.
    assert speedup([2.0, 20.0, 4.0], [1.0, 10.0, 4.0]).median == 2.0


def test_equal_rounds_leave_no_doubt():
    assert speedup([3.0] * 4, [2.0] * 4) == (1.5, 1.5, 1.5)


def test_the_interval_is_the_percentile_bootstrap():
    rng = np.random.default_rng(5)
    baseline, seconds = rng.lognormal(size=(2, 25))
    found = speedup(baseline, seconds)
    expected = scipy.stats.bootstrap(
        (baseline / seconds,),
        np.median,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    # Both draw; the ends are values of the sample or near them.
    assert found.low == pytest.approx(expected.low, rel=0.05)
    assert found.high == pytest.approx(expected.high, rel=0.05)
    assert found.low < found.median < found.high


def test_the_interval_is_that_of_the_order_statistics():
    """The ends of the median's interval follow from the binomial distribution."""
    ratios = np.arange(1.0, 16.0)
    found = speedup(ratios, np.ones(15))
    # The median of 15 draws is at most k if 8 of them are, each with probability k / 15.
    at_most = scipy.stats.binom.sf(7, 15, ratios / 15)
    assert found.low == ratios[np.argmax(at_most >= 0.025)]
    assert found.high == ratios[np.argmax(at_most >= 0.975)]


def test_medians_and_rates():
    measured = Measured({"a": [1.0, 5.0, 2.0]}, {"a": [4.0, 3.0, 9.0]}, [(1.0, 2.0), (2.0, 3.0)])
    assert measured.median("a") == 2.0
    assert measured.median_of_processor("a") == 4.0
    assert measured.control_rate() == 2.0
