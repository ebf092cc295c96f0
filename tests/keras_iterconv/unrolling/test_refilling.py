"""The loop in which waiting samples take the places of those that have stopped."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling.refilling import REFILL_COST, Samples, run_refilled
from keras_iterconv.unrolling.stopping import UPDATE_NORM

THRESHOLD, SIZE = 0.01, 7


@pytest.fixture
def problem(make_problem):
    return make_problem(np.random.default_rng(3).permutation(np.geomspace(1e-3, 30, 60)))


def stream(problem, cost, chunk, min_unroll=1):
    """Return the ends and depths by sample, and the size of the batch at each update."""
    x, weights, u = (tf.constant(z, tf.float64) for z in problem.operands)
    rows: list[int] = []
    update = problem.update([weights], u, tf.float64, rows)
    waiting = []
    for n in range(0, len(x), chunk):
        part = x[n : n + chunk]
        numbers = tf.range(n, n + len(part), dtype=tf.int64)
        k = tf.zeros([len(part)], tf.int32)
        waiting.append(Samples(numbers, k, part, (u[n : n + chunk],), ()))
    inside = nobody = tf.nest.map_structure(lambda z: z[:0], waiting[0])
    ends, depths = {}, {}
    while waiting or len(inside.numbers):
        inside, stopped = run_refilled(
            update,
            inside,
            waiting.pop(0) if waiting else nobody,
            SIZE,
            problem.updates,
            THRESHOLD,
            UPDATE_NORM,
            min_unroll,
            cost,
        )
        for number, k, end in zip(*(z.numpy() for z in stopped[:3]), strict=True):
            assert number not in ends
            ends[number], depths[number] = end, k
    order = range(len(x))
    return np.stack([ends[n] for n in order]), np.array([depths[n] for n in order]), rows


@pytest.mark.parametrize(("chunk", "cost"), [(1, 0.5), (5, REFILL_COST), (7, 0), (60, 0.5)])
def test_each_sample_against_a_loop_over_it_alone(problem, chunk, cost):
    expected, alone = problem.all_alone(THRESHOLD)
    assert set(alone) >= {1, problem.updates}
    ends, depths, _ = stream(problem, cost, chunk)
    np.testing.assert_array_equal(depths, alone)
    np.testing.assert_allclose(ends, expected, rtol=1e-12)


def test_no_sample_stops_before_the_rule_counts(problem):
    _, alone = problem.all_alone(THRESHOLD)
    _, depths, _ = stream(problem, REFILL_COST, 7, min_unroll=4)
    np.testing.assert_array_equal(depths, np.maximum(alone, 4))


def test_the_batch_stays_full_of_active_samples(problem):
    """Where a refill costs nothing, no update is made of a stopped sample until none wait."""
    _, depths, rows = stream(problem, 0, 60)
    left, queue, expected = [], list(depths), []
    while left or queue:
        while queue and len(left) < SIZE:
            left.append(queue.pop(0))
        expected.append(len(left))
        left = [each - 1 for each in left if each > 1]
    assert rows == expected
    assert rows[: -problem.updates] == [SIZE] * (len(rows) - problem.updates)


@pytest.mark.parametrize("cost", [0.3, 1.0])
def test_the_waste_between_refills_is_at_most_their_cost(problem, cost):
    _, depths, rows = stream(problem, cost, 60)
    refills_at_most = len(depths)
    assert 0 < sum(rows) - sum(depths) <= refills_at_most * cost * SIZE
    _, _, fewest = stream(problem, 0, 60)
    assert sum(fewest) == sum(depths)
    assert len(fewest) < len(rows)
