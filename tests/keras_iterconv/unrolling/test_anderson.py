"""Anderson acceleration: what it finds and counts, and that it is never worse than the loop."""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from keras_iterconv.unrolling import (
    ACTIVATIONS,
    EulerUpdate,
    Status,
    anderson_loop,
    unroll_adaptive,
    unroll_anderson,
)

SIZE = 8


class Map:
    """x + h tanh(x W + u), contracting, W = -Q diag(rates) Q'; rows are samples."""

    def __init__(self, rates, samples, seed=0, scale=1.0, step=0.5):
        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.normal(size=(len(rates), len(rates))))[0]
        self.W, self.step = -(Q * rates) @ Q.T, step
        self.x = scale * rng.normal(size=(samples, len(rates)))
        # The fixed point -u W^-1 is drawn first, so that it is not far.
        self.target = scale * rng.normal(size=(samples, len(rates)))
        self.u = -self.target @ self.W

    def change(self, x, n):
        return self.step * np.tanh(x @ self.W + self.u[n])

    def root(self, n):
        start = self.target[n] + 0.1 * np.sin(np.arange(len(self.W)))
        found = scipy.optimize.root(lambda x: np.tanh(x @ self.W + self.u[n]), start, tol=1e-13)
        assert np.abs(found.fun).max() < 1e-12
        return found.x

    def update(self, W, u, dtype=tf.float64, seen=None):
        def transfer(state, k, weights, drives):
            if seen is not None:
                seen.append(int(state.shape[0]))
            return tf.cast(state, dtype) @ tf.cast(weights[0], dtype) + drives[0]

        return EulerUpdate(transfer, ACTIVATIONS["tanh"], self.step, dtype, linear=True).bind(
            (W,), (u,)
        )

    def run(self, max_unroll, threshold, unroll=unroll_anderson, dtype=tf.float64, seen=None):
        x, W, u = (tf.constant(z, dtype) for z in (self.x, self.W, self.u))
        return unroll(self.update(W, u, dtype, seen), x, max_unroll, threshold)

    def run_in_graph(self, max_unroll, threshold, unroll=unroll_anderson, dtype=tf.float64):
        """Return what `run` does, of which hundreds of updates take seconds."""
        operands = (tf.constant(z, dtype) for z in (self.x, self.W, self.u, threshold))
        return traced_run(unroll, dtype, self.step)(*operands, tf.constant(max_unroll))


@functools.cache
def traced_run(unroll, dtype, step):
    """Return the run of any map of this step as a graph, traced once for each shape."""
    problem = Map(np.ones(SIZE), 1, step=step)

    @tf.function
    def run(x, W, u, threshold, max_unroll):
        return unroll(problem.update(W, u, dtype), x, max_unroll, threshold)

    return run


def plain_alone(problem, n, max_unroll, threshold):
    """Return the state, the updates and the norm of the last, of the plain loop on sample n."""
    x, f, depth = problem.x[n], np.inf, 0
    while depth < max_unroll and np.linalg.norm(f) >= threshold:
        f = problem.change(x, n)
        x, depth = x + f, depth + 1
    return x, depth, np.linalg.norm(f)


def accelerated_alone(problem, n, max_unroll, threshold):
    """Return the state, the evaluations, the last norm, and how many states were thrown away."""
    x, f, norm = None, None, np.inf
    trial, accelerated, thrown, pairs = problem.x[n], False, 0, []
    for k in range(max_unroll):
        g = problem.change(trial, n)
        if np.linalg.norm(g) < threshold:
            return trial + g, k + 1, np.linalg.norm(g), thrown
        if k > 0:
            pairs = [(trial - x, g - f), *pairs][: anderson_loop.HISTORY]
        better = np.linalg.norm(g) < norm
        kept = better or not accelerated
        if kept:
            x, f, norm = trial, g, np.linalg.norm(g)
        else:
            thrown += 1
        trial, accelerated = x + f, False
        if kept and pairs:
            lengths = np.array([np.linalg.norm(df) for _, df in pairs])
            if (lengths > 0).any():
                safe = np.where(lengths > 0, lengths, 1)
                dX, dF = (np.stack([p[i] for p in pairs]).T / safe for i in (0, 1))
                # The regularised fit as one least-squares problem, not by normal equations.
                small = np.sqrt(anderson_loop.REGULARIZATION) * np.eye(len(pairs))
                tall = np.vstack([dF, small])
                gamma = np.linalg.lstsq(tall, np.append(f, np.zeros(len(pairs))), rcond=None)[0]
                trial, accelerated = x + f - (dX + dF) @ gamma, True
    end, spent, last = plain_alone(problem, n, max_unroll, threshold)
    return end, spent + max_unroll, last, thrown


RATES = {
    "slow": np.geomspace(0.02, 1, SIZE),
    "badly conditioned": np.geomspace(1e-5, 3.5, SIZE),
    "oscillating": np.linspace(3, 3.9, SIZE),
    "fast": np.linspace(1, 2, SIZE),
    "all alike": np.full(SIZE, 0.3),
}


@pytest.mark.parametrize("scale", [0.1, 1, 10])
@pytest.mark.parametrize("rates", RATES)
def test_each_sample_against_a_numpy_loop_over_it_alone(rates, scale):
    problem = Map(RATES[rates], 12, scale=scale)
    end = problem.run(40, 1e-4)
    expected = [accelerated_alone(problem, n, 40, 1e-4) for n in range(12)]
    np.testing.assert_array_equal(end.depth, [depth for _, depth, _, _ in expected])
    np.testing.assert_allclose(end.state, [x for x, *_ in expected], rtol=1e-6, atol=1e-6)
    converged = [last < 1e-4 for _, _, last, _ in expected]
    np.testing.assert_array_equal(end.status == Status.CONVERGED, converged)
    if scale == 10 and rates == "slow":
        # Such states there are, far from where tanh is straight.
        assert sum(thrown for *_, thrown in expected) > 5


@pytest.mark.parametrize("rates", ["slow", "fast", "all alike", "oscillating"])
def test_both_solvers_converge_to_the_same_state(rates):
    problem = Map(RATES[rates], 20, seed=1)
    threshold = 1e-7
    ends = [
        problem.run_in_graph(5000, threshold, unroll)
        for unroll in (unroll_anderson, unroll_adaptive)
    ]
    roots = np.stack([problem.root(n) for n in range(20)])
    # h |tanh(W e)| = norm: near the root the error is at most the norm over h and the slowest rate.
    accuracy = threshold / (problem.step * RATES[rates].min())
    for end in ends:
        np.testing.assert_array_equal(end.status, [Status.CONVERGED] * 20)
        assert np.linalg.norm(end.state - roots, axis=1).max() < accuracy
    assert np.sum(ends[0].depth) <= np.sum(ends[1].depth)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("max_unroll", [1, 2, 3, 10, 60])
def test_never_a_larger_update_than_the_plain_loop(max_unroll, dtype):
    converged = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        rates = 10 ** rng.uniform(-6, np.log10(3.9), SIZE)
        problem = Map(rates, 16, seed, scale=10 ** rng.uniform(-3, 3))
        threshold = 10 ** rng.uniform(-6, -2)
        fast = problem.run_in_graph(max_unroll, threshold, dtype=dtype)
        plain = problem.run_in_graph(max_unroll, threshold, unroll_adaptive, dtype)
        done = fast.status.numpy() == Status.CONVERGED
        converged += done.sum()
        # Samples that converge in the plain loop converge here too; the others end at its state.
        assert done[plain.status.numpy() == Status.CONVERGED].all()
        tolerance = 1e-4 if dtype == tf.float32 else 1e-10
        np.testing.assert_allclose(
            fast.state.numpy()[~done], plain.state.numpy()[~done], rtol=tolerance, atol=tolerance
        )
        changes = np.stack([problem.change(x, n) for n, x in enumerate(fast.state.numpy())])
        norms = np.linalg.norm(changes, axis=1)
        by_plain = np.stack([problem.change(x, n) for n, x in enumerate(plain.state.numpy())])
        # The update after the one that fell below: by a symmetric W it is no longer.
        limit = np.maximum(np.linalg.norm(by_plain, axis=1), threshold)
        assert (norms <= limit * (1 + 1e-5) + 1e-6 * (dtype == tf.float32)).all()
        assert (fast.depth.numpy() <= 2 * max_unroll).all()
    assert max_unroll == 1 or converged > 5


def test_slow_blocks_take_fewer_evaluations():
    problem = Map(np.geomspace(0.05, 1, 32), 16, step=0.1)
    for threshold, gain in ((1e-3, 2), (1e-6, 5)):
        fast, plain = (
            problem.run_in_graph(3000, threshold, f) for f in (unroll_anderson, unroll_adaptive)
        )
        assert (fast.status.numpy() == Status.CONVERGED).all()
        assert np.mean(fast.depth) * gain < np.mean(plain.depth)


# With the last pair, two of the three samples converge and one needs the plain loop.
@pytest.mark.parametrize(("max_unroll", "threshold"), [(3, 1e-5), (20, 1e-5), (60, 1e-4)])
def test_depth_counts_every_evaluation(max_unroll, threshold):
    for seed in (1, 2, 4):
        problem, seen = Map(RATES["badly conditioned"], 1, seed, scale=3), []
        end = problem.run(max_unroll, threshold, seen=seen)
        assert sum(seen) == len(seen) == int(end.depth[0])


def test_samples_that_have_converged_leave_the_batch_at_each_step():
    problem, seen = Map(RATES["fast"], 9, scale=1), []
    end = problem.run(100, 1e-5, seen=seen)
    assert len(set(end.depth.numpy())) > 1
    assert sum(seen) == np.sum(end.depth)


@pytest.fixture(scope="module")
def whole():
    """Return a problem, what it gives, and a graph of it for any number of samples."""
    problem = Map(RATES["slow"], 64, scale=2)

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE], tf.float64)] * 2)
    def graph(x, u):
        update = problem.update(tf.constant(problem.W), u)
        return unroll_anderson(update, x, tf.constant(25), tf.constant(1e-3, tf.float64))

    return problem, problem.run(25, 1e-3), graph


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("samples", [0, 1, 7, 64])
def test_samples_do_not_depend_on_their_batch(whole, samples, mode):
    problem, expected, graph = whole
    assert {0, 1} <= set(expected.status.numpy())
    problem = copy.copy(problem)
    problem.x, problem.u = problem.x[:samples], problem.u[:samples]
    end = graph(problem.x, problem.u) if mode == "graph" else problem.run(25, 1e-3)
    assert end.state.shape == (samples, SIZE)
    np.testing.assert_allclose(end.state, expected.state[:samples], rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(end.depth, expected.depth[:samples])
    np.testing.assert_array_equal(end.status, expected.status[:samples])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "u"])
def test_a_sample_that_is_not_finite_does_not_change_others(where, bad):
    problem = Map(RATES["slow"], 6, scale=2)
    expected = problem.run_in_graph(200, 1e-4)
    getattr(problem, where)[2, 1] = bad
    others = [0, 1, 3, 4, 5]
    end, plain = (
        problem.run_in_graph(200, 1e-4, unroll) for unroll in (unroll_anderson, unroll_adaptive)
    )
    for got, good in zip(end, expected, strict=True):
        np.testing.assert_allclose(got.numpy()[others], good.numpy()[others], rtol=1e-9)
    assert end.status[2] == plain.status[2]
    if np.isnan(bad):
        assert (end.status[2], end.depth[2]) == (Status.NOT_FINITE, 1)


def test_a_state_that_breaks_the_map_is_not_kept():
    # NaN at all states that the plain loop does not reach.
    problem = Map(RATES["slow"], 8)
    paths = [problem.x]
    for _ in range(400):
        x = paths[-1]
        paths.append(x + problem.change(x, slice(None)))
    limit = np.abs(paths).max() + 1e-9

    x, W, u = (tf.constant(z) for z in (problem.x, problem.W, problem.u))
    recovered = 0
    # Of the samples, two come to such states.
    for n in (0, 3, 7):
        plain, broken = problem.update(W, u[n : n + 1]), []

        def transfer(state, k, weights, drives, plain=plain, broken=broken):
            broken.append(bool(tf.reduce_any(tf.abs(state) > limit)))
            value = plain.update.transfer(state, k, weights, drives)
            return np.nan * value if broken[-1] else value

        update = dataclasses.replace(plain.update, transfer=transfer)
        bound = plain._replace(update=update)
        end = unroll_anderson(bound, x[n : n + 1], 400, 1e-5)
        assert any(broken) == (n > 0)
        assert end.status[0] != Status.NOT_FINITE
        if end.status[0] == Status.CONVERGED:
            np.testing.assert_allclose(end.state[0], problem.root(n), atol=1e-3)
        # Without the fallback to the plain loop.
        recovered += any(broken) and int(end.depth[0]) == len(broken) < 400
    assert recovered


def test_a_system_without_a_solution_spoils_no_other():
    rng = np.random.default_rng(0)
    square = rng.normal(size=(3, 5, 5))
    matrices = square @ square.transpose(0, 2, 1) + 0.1 * np.eye(5)
    matrices[1] = 0
    values = rng.normal(size=(3, 5, 1))
    got = anderson_loop._solve(tf.constant(matrices), tf.constant(values)).numpy()
    assert not np.isfinite(got[1]).any()
    for n in (0, 2):
        np.testing.assert_allclose(got[n], np.linalg.solve(matrices[n], values[n]), rtol=1e-9)


def test_a_fit_that_fails_takes_the_plain_step(monkeypatch):
    problem = Map(RATES["fast"], 5)
    solve = anderson_loop._solve

    def fail(matrices, values):
        weights = solve(matrices, values)
        return tf.where(tf.ones_like(weights) > 0, np.nan, weights)

    monkeypatch.setattr(anderson_loop, "_solve", fail)
    fast, plain = (problem.run(60, 1e-3, f) for f in (unroll_anderson, unroll_adaptive))
    assert (plain.status.numpy() == Status.CONVERGED).all()
    np.testing.assert_allclose(fast.state, plain.state, rtol=1e-12)
    np.testing.assert_array_equal(fast.depth, plain.depth)


def test_where_all_units_are_saturated_no_evaluation_is_lost():
    # The update is then the same everywhere: no difference to learn from.
    problem = Map(RATES["fast"], 4, scale=1e4)
    fast = problem.run(20, 1e-3)
    plain = problem.run(20, 1e-3, unroll_adaptive)
    np.testing.assert_array_equal(fast.state, plain.state)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision(dtype):
    problem = Map(RATES["fast"], 6)
    x, W = (tf.constant(z, tf.float32) for z in (problem.x, problem.W))
    update = problem.update(W, tf.constant(problem.u, dtype), dtype)
    end = unroll_anderson(update, x, 60, 0.05)
    assert end.state.dtype == tf.float32
    np.testing.assert_array_equal(end.status, [Status.CONVERGED] * 6)
    roots = np.stack([problem.root(n) for n in range(6)])
    assert np.linalg.norm(end.state - roots, axis=1).max() < 0.05 / 0.5 + 0.1


def gradients(problem, max_unroll, threshold, unroll, g, mode="eager"):
    def call(operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            x, W, u = operands
            end = unroll(problem.update(W, u), x, max_unroll, threshold)
            loss = tf.reduce_sum(g * end.state)
        return end, tape.gradient(loss, operands)

    operands = [tf.constant(z) for z in (problem.x, problem.W, problem.u)]
    return (tf.function(call) if mode == "graph" else call)(operands)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_gradient_of_samples_that_converged(mode):
    problem = Map(RATES["fast"], 5)
    g = np.random.default_rng(3).normal(size=problem.x.shape)
    end, (dx, dW, du) = gradients(problem, 200, 1e-8, unroll_anderson, g, mode)
    assert (end.status.numpy() == Status.CONVERGED).all()
    # The fixed point is -u W^-1.
    inverse = np.linalg.inv(problem.W)
    expected = -g @ inverse.T
    np.testing.assert_allclose(du, expected, atol=1e-4)
    np.testing.assert_allclose(dW, end.state.numpy().T @ expected, atol=1e-4)
    np.testing.assert_array_equal(dx, np.zeros_like(dx))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_gradient_of_samples_that_did_not_converge_is_exact(mode):
    problem = Map(RATES["badly conditioned"], 5)
    g = np.random.default_rng(3).normal(size=problem.x.shape)
    end, got = gradients(problem, 6, 1e-9, unroll_anderson, g, mode)
    assert (end.status.numpy() == Status.MAX_UNROLL).all()
    _, expected = gradients(problem, 6, 1e-9, unroll_adaptive, g)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_gradients_of_a_mixed_batch_are_sums_over_its_samples():
    problem = Map(RATES["fast"], 4, scale=1)
    problem.x[::2] += 30.0
    g = np.random.default_rng(3).normal(size=problem.x.shape)
    end, (dx, dW, du) = gradients(problem, 20, 1e-6, unroll_anderson, g)
    assert set(end.status.numpy()) == {Status.CONVERGED, Status.MAX_UNROLL}
    total = np.zeros_like(dW)
    for n in range(4):
        alone = copy.copy(problem)
        alone.x, alone.u = problem.x[n : n + 1], problem.u[n : n + 1]
        _, (dx1, dW1, du1) = gradients(alone, 20, 1e-6, unroll_anderson, g[n : n + 1])
        np.testing.assert_allclose(dx[n], dx1[0], atol=1e-10)
        np.testing.assert_allclose(du[n], du1[0], atol=1e-10)
        total += dW1
    np.testing.assert_allclose(dW, total, rtol=1e-9, atol=1e-9)
