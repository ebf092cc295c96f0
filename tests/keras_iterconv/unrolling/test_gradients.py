"""The four gradients of both loops, against plain differentiation, dense algebra and each other."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import GRADIENTS, EulerUpdate, unroll_adaptive, unroll_fixed
from keras_iterconv.unrolling.euler_update import IDENTITY
from keras_iterconv.unrolling.gradients.implicit import implicit_mode

EXACT = ("unroll", "recompute")
LOOPS = {"fixed": None, "adaptive": 0.05}
SCALES = (1e-3, 0.1, 1.0, 5.0, 0.5)
# Where tanh is not saturated, so that the series of `implicit` is short.
SMALL = (1e-3, 0.1, 0.4, 0.3, 0.2)
STEP = 0.5


def scales_for(gradient):
    return SMALL if gradient == "implicit" else SCALES


@pytest.fixture(params=LOOPS)
def threshold(request):
    return LOOPS[request.param]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def tied(request):
    return request.param


def upstream(problem):
    return np.random.default_rng(1).normal(size=problem.x.shape)


def unroll(problem, operands, threshold, gradient, dtype=None, updates=None):
    x, *weights, u = operands
    update = problem.update(weights, u, dtype or x.dtype)
    updates = problem.updates if updates is None else updates
    if threshold is None:
        return unroll_fixed(update, x, updates, gradient)
    return unroll_adaptive(update, x, updates, tf.constant(threshold, x.dtype), gradient)


def tensors(problem, dtype=tf.float64):
    return [tf.constant(operand, dtype) for operand in problem.operands]


def differentiate(problem, threshold, gradient, g=None, mode="eager", dtype=tf.float64):
    """Return the depths, and the gradients in the initial state, the weights and the drive."""
    g = tf.constant(upstream(problem) if g is None else g, dtype)

    def call(operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            end = unroll(problem, operands, threshold, gradient)
            loss = tf.reduce_sum(tf.where(g == 0, tf.zeros_like(g), g * end.state))
        return end.depth, tape.gradient(loss, operands)

    depth, got = (tf.function(call) if mode == "graph" else call)(tensors(problem, dtype))
    return depth.numpy(), [z.numpy() for z in got]


def tape_of_python_loops(problem, threshold):
    """Return the depths and the gradients of loops over each sample alone, by TensorFlow's own."""
    operands, g = tensors(problem), upstream(problem)
    sigma = {"relu": tf.nn.relu, "tanh": tf.tanh, "identity": tf.identity}[problem.activation]
    depths = []
    with tf.GradientTape() as tape:
        tape.watch(operands)
        x, *weights, u = operands
        loss = 0.0
        for n in range(len(g)):
            state, drive = x[n : n + 1], u[n : n + 1]
            for k in range(problem.updates):
                if problem.tied:
                    change = STEP * sigma(state @ weights[0] + drive)
                else:
                    W, D, b = (weight[k] for weight in weights)
                    change = STEP * sigma(state @ W + drive @ D + b)
                state = state + change
                if threshold is not None and np.linalg.norm(change) < threshold:
                    break
            depths.append(k + 1)
            loss += tf.reduce_sum(g[n] * state)
    return depths, [z.numpy() for z in tape.gradient(loss, operands)]


def assert_near(got, expected, tolerance):
    """Compare gradients, each relative to its largest number."""
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-3))


def assert_spread(depths, threshold):
    assert len(set(depths)) >= (4 if threshold else 1)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_exact_gradients_against_tapes_and_finite_differences(
    threshold, tied, activation, make_problem
):
    problem = make_problem(SCALES, tied, activation, updates=6)
    depths, expected = tape_of_python_loops(problem, threshold)
    if activation == "tanh":
        assert_spread(depths, threshold)
    results = [differentiate(problem, threshold, gradient) for gradient in EXACT]
    for depth, got in results:
        np.testing.assert_array_equal(depth, depths)
        assert_near(got, expected, 1e-10)
    assert_near(results[1][1], results[0][1], 1e-12)

    rng, g = np.random.default_rng(2), upstream(problem)

    def loss(operands):
        return sum(g[n] @ problem.alone(n, threshold, operands)[0] for n in range(len(g)))

    for position, slope in enumerate(expected):
        direction = rng.normal(size=slope.shape)
        step = 1e-6 / np.linalg.norm(direction)
        ends = []
        for sign in (1, -1):
            operands = list(problem.operands)
            operands[position] = operands[position] + sign * step * direction
            ends.append(loss(operands))
        difference = (ends[0] - ends[1]) / (2 * step)
        assert np.sum(slope * direction) == pytest.approx(difference, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_graphs_give_what_eager_calls_give(threshold, tied, gradient, make_problem):
    if gradient == "implicit" and not tied:
        pytest.skip("untied updates have no fixed point")
    problem = make_problem(scales_for(gradient), tied, updates=6)
    depth, expected = differentiate(problem, threshold, gradient)
    graph_depth, got = differentiate(problem, threshold, gradient, mode="graph")
    np.testing.assert_array_equal(graph_depth, depth)
    assert_near(got, expected, 1e-10)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_exact_gradients_in_single_precision(threshold, tied, activation, make_problem):
    problem = make_problem(SCALES, tied, activation, updates=6)
    _, exact = differentiate(problem, threshold, "unroll")
    (_, kept), (_, again) = (
        differentiate(problem, threshold, gradient, dtype=tf.float32) for gradient in EXACT
    )
    assert_near(again, kept, 1e-5)
    assert_near(kept, exact, 1e-5)


def dense_frozen(problem, threshold):
    """Return the depths and sums over j < depth of (J')^j g, pulled back, by dense algebra.

    J has the slopes at the last state; for ReLU 1 where the unroll has moved the state, else 0.
    """
    ends, depths = problem.all_alone(threshold)
    g = upstream(problem)
    dx, *dweights, du = (np.zeros_like(operand) for operand in problem.operands)
    for n, (x, depth) in enumerate(zip(ends, depths, strict=True)):
        v = g[n]
        moved = (x > problem.x[n]).astype(float) if problem.activation == "relu" else None
        for k in reversed(range(depth)):
            J, slopes = problem.jacobian(n, x, k, moved)
            pre = STEP * slopes * v
            if problem.tied:
                dweights[0] += np.outer(x, pre)
                du[n] += pre
            else:
                dweights[0][k] += np.outer(x, pre)
                dweights[1][k] += np.outer(problem.u[n], pre)
                dweights[2][k] += pre
                du[n] += problem.weights[1][k] @ pre
            v = J.T @ v
        dx[n] = v
    return depths, [dx, *dweights, du]


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_frozen_against_powers_of_one_jacobian(threshold, tied, activation, make_problem):
    problem = make_problem(SCALES, tied, activation, updates=6)
    depths, expected = dense_frozen(problem, threshold)
    if activation == "tanh":
        assert_spread(depths, threshold)
    depth, got = differentiate(problem, threshold, "frozen")
    np.testing.assert_array_equal(depth, depths)
    assert_near(got, expected, 1e-12)
    # Slopes that do not change: what multiplies no state is exact then.
    _, exact = differentiate(problem, threshold, "unroll")
    apart = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(got, exact, strict=True)]
    if activation == "identity":
        assert max(apart[:1] + apart[2:]) < 1e-12
    elif activation == "tanh":
        assert min(apart) > 1e-4


@pytest.mark.parametrize("threshold", [None, 1e-7])
def test_implicit_at_convergence(threshold, make_problem):
    problem = make_problem(SMALL, updates=80)
    depth, got = differentiate(problem, threshold, "implicit")
    if threshold:
        assert (depth < 80).all()
        assert len(set(depth)) > 1
    _, exact = differentiate(problem, threshold, "unroll")
    assert_near(got[1:], exact[1:], 1e-4)
    np.testing.assert_array_equal(got[0], np.zeros_like(got[0]))
    assert np.abs(exact[0]).max() < 1e-4

    ends, _ = problem.all_alone(threshold)
    g = upstream(problem)
    dW, du = np.zeros_like(problem.weights[0]), np.zeros_like(problem.u)
    for n, x in enumerate(ends):
        J, slopes = problem.jacobian(n, x, 0)
        total = np.linalg.solve(np.eye(len(J)) - J.T, g[n])
        du[n] = STEP * slopes * total
        dW += np.outer(x, du[n])
    # The series ends at a term of 1e-6 of the first, with less than a few of those left out.
    assert_near(got[1:], [dW, du], 1e-5)


def test_implicit_far_from_convergence_is_the_fixed_points_formula(make_problem):
    problem = make_problem(SMALL, updates=2)
    _, (_, _, du) = differentiate(problem, None, "implicit")
    _, (_, _, exact) = differentiate(problem, None, "unroll")
    ends, _ = problem.all_alone()
    for n, x in enumerate(ends):
        J, slopes = problem.jacobian(n, x, 0)
        total = np.linalg.solve(np.eye(len(J)) - J.T, upstream(problem)[n])
        np.testing.assert_allclose(du[n], STEP * slopes * total, rtol=1e-4, atol=1e-5)
    assert np.abs(du - exact).max() > 0.1


def test_implicit_gives_up_where_its_series_does_not_end(make_problem):
    problem = make_problem(SCALES, activation="identity", updates=3)
    # Eigenvalues of J of 1.25: no fixed point attracts.
    problem.weights[0][:] = 0.5 * np.eye(4)
    _, got = differentiate(problem, None, implicit_mode(terms=50))
    total = (1.25**50 - 1) / 0.25
    np.testing.assert_allclose(got[2], STEP * total * upstream(problem), rtol=1e-10)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_sample_alone_and_among_others(threshold, tied, gradient, make_problem):
    if gradient == "implicit" and not tied:
        pytest.skip("untied updates have no fixed point")
    largest = max(scales_for(gradient))
    problem = make_problem(np.geomspace(1e-3, largest, 64), tied)
    g = upstream(problem)
    _, (dx, *_, du) = differentiate(problem, threshold, gradient, dtype=tf.float32)
    for n in (0, 31, 63):
        alone = make_problem(np.ones(1), tied)
        alone.x, alone.u, alone.weights = (
            problem.x[n : n + 1],
            problem.u[n : n + 1],
            problem.weights,
        )
        _, (dx1, *_, du1) = differentiate(
            alone, threshold, gradient, g[n : n + 1], dtype=tf.float32
        )
        # A product of 64 rows may sum in another order than one of a single row: some processors
        # give 1.1e-6 for untied updates, 19 units in the last place of float32.
        assert_near([dx[n : n + 1], du[n : n + 1]], [dx1, du1], 3e-6)


@pytest.mark.parametrize(
    ("where", "bad"), [("state", np.inf), ("drive", np.nan), ("upstream", np.nan)]
)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_bad_sample_spoils_no_other(threshold, tied, gradient, where, bad, make_problem):
    if gradient == "implicit" and not tied:
        pytest.skip("untied updates have no fixed point")
    problem = make_problem(scales_for(gradient), tied, updates=6)
    if gradient == "implicit":
        # At an infinite state tanh has a slope of zero, and the series has no end.
        gradient = implicit_mode(terms=200)
    g, others = upstream(problem), [0, 1, 2, 4]
    depth, expected = differentiate(problem, threshold, gradient, g)
    {"state": problem.x, "drive": problem.u, "upstream": g}[where][3, 1] = bad
    with_bad, got = differentiate(problem, threshold, gradient, g)
    np.testing.assert_array_equal(with_bad[others], depth[others])
    for position in (0, -1):
        np.testing.assert_allclose(
            got[position][others], expected[position][others], rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_what_a_stopped_sample_would_have_done_reaches_no_weight(gradient, make_problem):
    # Not tanh, which would turn an infinite transfer into a finite update.
    problem = make_problem(scales_for(gradient), activation="identity", updates=6)
    threshold = LOOPS["adaptive"]
    depth, expected = differentiate(problem, threshold, gradient)
    assert depth[0] == 1

    x, *weights, u = tensors(problem)
    plain = problem.update(weights, u)

    def transfer(state, k, weights, drives):
        # From the second update on, the first sample's transfer would be infinite.
        small = tf.reduce_all(tf.abs(state) < 0.02, axis=1, keepdims=True) & (k > 0)
        value = plain.update.transfer(state, k, weights, drives)
        return tf.where(small, tf.constant(np.inf, tf.float64), value)

    with tf.GradientTape() as tape:
        tape.watch(operands := [x, *weights, u])
        euler = dataclasses.replace(plain.update, transfer=transfer)
        update = euler.bind(plain.weights, plain.drives)
        end = unroll_adaptive(update, x, 6, tf.constant(threshold, tf.float64), gradient)
        loss = tf.reduce_sum(upstream(problem) * end.state)
    assert_near(tape.gradient(loss, operands), expected, 1e-12)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_drives_of_half_precision(threshold, tied, gradient, dtype, make_problem):
    if gradient == "implicit" and not tied:
        pytest.skip("untied updates have no fixed point")
    problem = make_problem(scales_for(gradient), tied, updates=6)
    g = tf.constant(upstream(problem), tf.float32)
    x, *weights, u = tensors(problem, tf.float32)
    operands = [x, *weights, tf.cast(u, dtype)]
    with tf.GradientTape() as tape:
        tape.watch(operands)
        end = unroll(problem, operands, threshold, gradient, dtype)
        loss = tf.reduce_sum(g * end.state)
    got = tape.gradient(loss, operands)
    assert end.state.dtype == tf.float32
    assert [z.dtype for z in got] == [z.dtype for z in operands]
    depth, expected = differentiate(problem, threshold, gradient)
    np.testing.assert_array_equal(end.depth, depth)
    tolerance = {tf.float16: 0.01, tf.bfloat16: 0.08}[dtype]
    assert_near([tf.cast(z, tf.float64).numpy() for z in got], expected, tolerance)


def test_the_series_of_implicit_ends_for_small_gradients_in_half_precision(make_problem):
    # The terms fall under the smallest number of float16, 6e-8, long before 1e-6 of the first.
    problem = make_problem(SMALL, updates=20)
    g = 1e-3 * upstream(problem)
    x, *weights, u = tensors(problem, tf.float32)
    operands = [x, *weights, tf.cast(u, tf.float16)]
    with tf.GradientTape() as tape:
        tape.watch(operands)
        terms = []
        update = problem.update(weights, operands[-1], tf.float16, seen=terms)
        end = unroll_fixed(update, x, 20, implicit_mode(terms=300))
        loss = tf.reduce_sum(tf.constant(g, tf.float32) * end.state)
    _, _, du = tape.gradient(loss, operands)
    _, (_, _, expected) = differentiate(problem, None, "implicit", g)
    assert_near([tf.cast(du, tf.float64).numpy()], [expected], 0.02)
    assert len(terms) < 20 + 100


def test_drive_gradients_of_half_precision_are_summed_in_the_states():
    # 100 times the 2^-9 after 1 would be lost in bfloat16.
    u = tf.zeros([1, 1], tf.bfloat16)
    for gradient in EXACT:
        with tf.GradientTape() as tape:
            tape.watch(u)

            def transfer(state, k, weights, drives):
                factor = tf.where(k == 100, tf.constant(1.0), 2.0**-9)
                return drives[0] * tf.cast(factor, tf.bfloat16)

            update = EulerUpdate(transfer, IDENTITY, dtype=tf.bfloat16).bind((), (u,))
            state = unroll_fixed(update, tf.zeros([1, 1]), 101, gradient).state
        # Rounded once: 1 + 100 / 512 to steps of 2^-7.
        assert float(tape.gradient(state, u)[0, 0]) == pytest.approx(1 + 100 / 512, abs=2**-8)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("samples", [0, 1, 2])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_batches_of_few_samples(threshold, tied, gradient, samples, mode, make_problem):
    if gradient == "implicit" and not tied:
        pytest.skip("untied updates have no fixed point")
    if mode == "graph" and tied != (gradient != "frozen"):
        pytest.skip("one graph of each gradient is enough")
    problem = make_problem(SMALL[:samples], tied, updates=3)
    # The graph is traced with the number of samples as a known shape.
    _, got = differentiate(problem, threshold, gradient, mode=mode)
    if samples == 0:
        for gradient, operand in zip(got, problem.operands, strict=True):
            np.testing.assert_array_equal(gradient, np.zeros(operand.shape))
    elif gradient in EXACT:
        assert_near(got, tape_of_python_loops(problem, threshold)[1], 1e-10)
    elif gradient == "frozen":
        assert_near(got, dense_frozen(problem, threshold)[1], 1e-12)


def ancestors(op):
    """Return all ops of a graph that this one waits for."""
    found, new = set(), [op]
    while new:
        op = new.pop()
        if op not in found:
            found.add(op)
            new += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_what_is_kept_until_the_backward_pass(threshold, gradient, make_problem):
    problem = make_problem(SCALES, updates=6)
    operands = tensors(problem)

    @tf.function
    def call(operands, g):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            state = unroll(problem, operands, threshold, gradient).state
        # As from a later layer: it is known only once the state is.
        return tape.gradient(state, operands, output_gradients=tf.identity(g, name="upstream"))

    graph = call.get_concrete_function(operands, tf.zeros_like(operands[0])).graph
    upstream_op = graph.get_operation_by_name("upstream")
    # Lists of tensors, whose size grows with the number of updates.
    lists = [op for op in graph.get_operations() if op.type.startswith("TensorList")]
    loops = [op for op in graph.get_operations() if op.type in ("While", "StatelessWhile")]
    assert len(loops) >= 2
    # Nothing of the loop's size is made before the gradient arrives from above.
    early = [op for op in lists if upstream_op not in ancestors(op)]
    forward = [op for op in loops if upstream_op not in ancestors(op)]
    assert len(forward) == 1
    carried = [output for output in forward[0].outputs if output.dtype == tf.variant]
    if gradient == "unroll":
        assert early
        assert carried
    else:
        assert not early
        assert not carried
    assert bool(lists) == (gradient in EXACT)
    # What the backward pass does to the last state or the operands, it does not before either.
    held = ("Tanh", "Relu", "MatMul", "While", "StatelessWhile")
    late = [op for op in graph.get_operations() if op.type in held and op not in forward]
    assert [op for op in late if upstream_op not in ancestors(op)] == []
