"""Sums over batches, against NumPy's means over the whole data set."""

import numpy as np
import pytest

from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.unrolling import Status


@pytest.mark.parametrize("cuts", [[], [1], [0, 17, 18], list(range(1, 40))])
def test_the_cut_into_batches_changes_nothing(cuts):
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 2**31 - 1, (40, 3), dtype=np.int32)
    status = rng.integers(0, 3, (40, 3), dtype=np.int32)
    right = rng.random(40) < 0.7
    tally = DepthTally()
    for part in zip(*(np.split(z, cuts) for z in (depth, status, right)), strict=True):
        tally.add(*part)
    assert tally.samples == 40
    assert tally.accuracy == right.mean()
    assert tally.updates == depth.sum(axis=1, dtype=np.int64).mean()
    assert tally.share_at_limit == pytest.approx(np.mean(status == Status.MAX_UNROLL), rel=1e-15)
    assert tally.share_not_finite == pytest.approx(np.mean(status == Status.NOT_FINITE), rel=1e-15)
    np.testing.assert_allclose(tally.updates_by_block, depth.mean(axis=0), rtol=1e-15)
    at_limit = np.mean(status == Status.MAX_UNROLL, axis=0)
    np.testing.assert_allclose(tally.share_at_limit_by_block, at_limit, rtol=1e-15)


def test_standard_errors_and_losses():
    rng = np.random.default_rng(1)
    depth = rng.integers(1, 100, (50, 3))
    right, reference = rng.random(50) < 0.6, rng.random(50) < 0.7
    tally = DepthTally()
    for part in np.split(np.arange(50), [7, 20]):
        tally.add(depth[part], np.zeros((len(part), 3)), right[part], reference[part])
    error = depth.sum(axis=1).std() / np.sqrt(50)
    assert tally.updates_standard_error == pytest.approx(error)
    lost = reference.astype(float) - right
    assert tally.accuracy_loss == pytest.approx(lost.mean())
    assert tally.accuracy_loss_standard_error == pytest.approx(error_with_pseudo_counts(lost))


def error_with_pseudo_counts(lost):
    """The error of Agresti and Min: half a sample more of each pair of right and wrong."""
    values = np.concatenate([lost, [1, -1, 0, 0]])
    weights = np.concatenate([np.ones(len(lost)), np.full(4, 0.5)])
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    return np.sqrt(variance / weights.sum())


def test_no_difference_among_few_samples_is_no_proof():
    counts = np.ones((20, 1), int), np.zeros((20, 1), int)
    same, itself = DepthTally(), DepthTally()
    same.add(*counts, np.ones(20, bool), np.ones(20, bool))
    itself.add(*counts, np.ones(20, bool))
    assert same.accuracy_loss == itself.accuracy_loss == 0
    assert same.accuracy_loss_standard_error == pytest.approx(1 / 22)
    assert itself.accuracy_loss_standard_error == 0
