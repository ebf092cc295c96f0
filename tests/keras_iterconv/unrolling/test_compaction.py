"""The adaptive loop on batches that shrink: stopped samples leave, and nobody else notices."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import unroll_adaptive

THRESHOLD = 0.01
# Always, the one in use, never.
COSTS = (0, 0.5, 1e9)


def scales(case, samples):
    if case == "spread":
        return np.random.default_rng(3).permutation(np.geomspace(1e-3, 30, samples))
    if case == "one straggler":
        return np.where(np.arange(samples) == samples // 2, 30.0, 1e-4)
    return np.full(samples, 0.3)


def make_case(make_problem, case, samples, **settings):
    """Return a problem, a threshold, and each sample's end alone."""
    problem = make_problem(scales(case, samples), **settings)
    if case == "all at once":
        problem.x[:], problem.u[:] = problem.x[:1], problem.u[:1]
    threshold = 1e-12 if case == "none stops" else THRESHOLD
    expected, depths = problem.all_alone(threshold)
    # The cases are what they say.
    if case == "spread" and samples > 1:
        assert set(depths) >= {1, problem.updates}
        assert len(set(depths)) >= min(samples - 1, 6)
    elif case == "all at once":
        assert len(set(depths)) == 1
        assert 1 < depths[0] < problem.updates
    elif case == "one straggler":
        assert depths[samples // 2] >= 6
        assert (np.delete(depths, samples // 2) == 1).all()
    elif case == "none stops":
        assert (depths == problem.updates).all()
    return problem, threshold, expected, depths


def tensors(problem, dtype):
    return [tf.constant(operand, dtype) for operand in problem.operands]


def run(problem, operands, threshold, seen=None, **options):
    x, *weights, u = operands
    update = problem.update(weights, u, x.dtype, seen)
    return unroll_adaptive(update, x, problem.updates, threshold, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("samples", [1, 7, 64])
@pytest.mark.parametrize("case", ["spread", "all at once", "one straggler", "none stops"])
def test_each_sample_against_a_loop_over_it_alone(case, samples, tied, dtype, make_problem):
    problem, threshold, expected, depths = make_case(make_problem, case, samples, tied=tied)
    operands = tensors(problem, dtype)
    end = run(problem, operands, tf.constant(threshold, dtype))
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(end.state, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(end.depth, depths)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("tied", [True, False])
def test_one_graph_serves_batches_of_every_size(tied, cost, make_problem):
    traced = []

    @tf.function(input_signature=[[tf.TensorSpec([None, 4], tf.float64)] * 2])
    def call(samples):
        traced.append(True)
        weights = [tf.constant(weight) for weight in first.weights]
        operands = [samples[0], *weights, samples[1]]
        return run(first, operands, tf.constant(THRESHOLD, tf.float64), compaction_cost=cost)

    first, *_ = make_case(make_problem, "spread", 7, tied=tied)
    for case in ("spread", "all at once", "one straggler"):
        for samples in (1, 7, 64):
            problem, _, _, _ = make_case(make_problem, case, samples, tied=tied)
            problem.weights = first.weights
            expected, depths = problem.all_alone(THRESHOLD)
            end = call([tf.constant(problem.x), tf.constant(problem.u)])
            np.testing.assert_allclose(end.state, expected, rtol=1e-12, atol=1e-12)
            np.testing.assert_array_equal(end.depth, depths)
    assert len(traced) == 1


@pytest.mark.parametrize("gradient", ["unroll", "recompute", "frozen"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", ["spread", "one straggler"])
def test_results_do_not_depend_on_the_time_of_compaction(case, tied, gradient, make_problem):
    problem, threshold, _, _ = make_case(make_problem, case, 16, tied=tied)
    g = np.random.default_rng(1).normal(size=problem.x.shape)

    def everything(cost):
        x, *weights, u = operands = tensors(problem, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(operands)
            update = problem.update(weights, u)
            end = unroll_adaptive(update, x, problem.updates, threshold, gradient, cost)
            loss = tf.reduce_sum(g * end.state)
        return end, tape.gradient(loss, operands)

    (never, expected), *others = (everything(cost) for cost in reversed(COSTS))
    for end, got in others:
        np.testing.assert_array_equal(end.depth, never.depth)
        np.testing.assert_array_equal(end.status, never.status)
        np.testing.assert_allclose(end.state, never.state, rtol=1e-13, atol=1e-15)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def sizes(problem, threshold=THRESHOLD, **options):
    """Return how many samples each update was computed for."""
    seen = []
    run(problem, tensors(problem, tf.float64), threshold, seen, **options)
    return seen


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", ["spread", "one straggler"])
def test_compaction_removes_stopped_samples_where_it_saves_time(case, tied, make_problem):
    problem, _, _, depths = make_case(make_problem, case, 64, tied=tied)
    moving = [int((depths > k).sum()) for k in range(max(depths))]
    assert sizes(problem, compaction_cost=0) == moving
    assert sizes(problem, compaction_cost=1e9) == [64] * max(depths)


def test_work_is_close_to_that_of_immediate_compaction(make_problem):
    for case in ("spread", "one straggler", "none stops", "all at once"):
        problem, threshold, _, depths = make_case(make_problem, case, 64)
        seen = sizes(problem, threshold)
        assert len(seen) == max(depths)
        assert sum(seen) <= 1.5 * sum(depths)
    problem, _, _, depths = make_case(make_problem, "one straggler", 64)
    assert sizes(problem) == [64] + [1] * (max(depths) - 1)


def test_one_sample_of_many_is_carried_along(make_problem):
    # Gathering the other 63 would cost more than it saves.
    problem = make_problem(np.where(np.arange(64) == 5, 1e-4, 30.0))
    _, depths = problem.all_alone(THRESHOLD)
    assert sorted(set(depths)) == [1, problem.updates]
    assert sizes(problem) == [64] * problem.updates


def test_the_last_active_sample_keeps_its_index_in_the_batch(make_problem):
    # Several compactions, at all indices: sample indices must be those of the whole batch.
    for cost in COSTS:
        for seed in range(5):
            rng = np.random.default_rng(seed)
            problem = make_problem(10 ** rng.uniform(-3, 1.5, 9), seed=seed)
            expected, depths = problem.all_alone(THRESHOLD)
            end = run(problem, tensors(problem, tf.float64), THRESHOLD, compaction_cost=cost)
            np.testing.assert_array_equal(end.depth, depths)
            np.testing.assert_allclose(end.state, expected, rtol=1e-12, atol=1e-14)
