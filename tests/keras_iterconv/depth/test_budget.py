"""Budgets in simulated searches, where the loss of each threshold is known."""

import numpy as np
import pytest

from keras_iterconv.depth.budget import make_budget
from keras_iterconv.depth.tally import DepthTally

# From the loosest of 12 thresholds on: the share of samples that are wrong there, and right at the
# model's own threshold, which is the strictest.
LOSSES = np.geomspace(0.2, 0.0005, 12)
REPEATS = 250


def tally(right, reference=None):
    found, zeros = DepthTally(), np.zeros((len(right), 1), int)
    found.add(zeros, zeros, right, reference)
    return found


@pytest.mark.parametrize("samples", [60, 100, 500])
@pytest.mark.parametrize("limit", [0.005, 0.02])
def test_other_samples_meet_a_budget_within_a_standard_error(samples, limit):
    rng, budget = np.random.default_rng(0), make_budget(limit, None)
    exceeding = 0
    for validation, test in rng.random((REPEATS, 2, samples)):
        right = np.ones(samples, bool)
        path = [tally(validation >= loss, right) for loss in LOSSES]
        place, _ = budget.border([*path, tally(right)])
        loss = np.mean(test < [*LOSSES, 0][place])
        exceeding += loss - np.sqrt(loss * (1 - loss) / samples) > limit
    # At most 3.5% of 4,000 repeats; of 250 at most 3.5% and three standard errors.
    assert exceeding / REPEATS <= 0.07
