"""The stopping rules of the adaptive loop, against loops in NumPy over each sample alone."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import Status, Update, call_traced_once, unroll_adaptive
from keras_iterconv.unrolling.stopping import (
    HaltingProbability,
    ReadoutChange,
    RelativeUpdateNorm,
    UnchangedPrediction,
    UpdateNorm,
)

SAMPLES, UPDATES = 7, 12


@dataclasses.dataclass(frozen=True)
class Turn(Update):
    """Two states: a damped rotation, and the sum of what it passed through."""

    def step(self, state, k, weights, drives):
        turned = tf.tanh(state["x"] @ weights[0]) + drives[0]
        new = {"x": turned, "sum": 0.7 * state["sum"] + tf.expand_dims(turned, 1)}
        return new, tf.nest.map_structure(tf.subtract, new, state)


def head(state, weights, drives):
    return tf.linalg.matvec(state["x"], weights[1])


def scores(state, weights, drives):
    return state["x"] @ weights[2]


def positions(state, weights, drives):
    return tf.stack([state["x"] @ weights[2], state["sum"][:, 0] @ weights[2]], axis=1)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def divergence(after, before):
    return (after * np.log(after / before)).sum(axis=-1).max()


class Alone:
    """One sample in NumPy: its values by each rule, update by update."""

    def __init__(self, tensors, n):
        start, (W,), drive, rule_weights = tf.nest.map_structure(lambda z: z.numpy(), tensors)
        self.v, self.R = rule_weights
        states = [(start["x"][n], start["sum"][n])]
        for _ in range(UPDATES):
            x, total = states[-1]
            x = np.tanh(x @ W) + drive[n]
            states.append((x, 0.7 * total + x))
        self.states = states

    def flat(self, k):
        return np.concatenate([z.ravel() for z in self.states[k]])

    def norm(self, k):
        return np.linalg.norm(self.flat(k) - self.flat(k - 1))

    def relative(self, k):
        return self.norm(k) / np.linalg.norm(self.flat(k))

    def halting(self, k):
        return 1 / (1 + np.exp(-self.states[k][0] @ self.v))

    def scores(self, k):
        return self.states[k][0] @ self.R

    def positions(self, k):
        return np.stack([self.scores(k), self.states[k][1][0] @ self.R])

    def change(self, k):
        return divergence(*(softmax(self.scores(j)) for j in (k, k - 1)))

    def change_of_positions(self, k):
        return divergence(*(softmax(self.positions(j)) for j in (k, k - 1)))

    def unchanged(self, k, readout="scores"):
        count = 0
        for j in range(k, 0, -1):
            now, before = (getattr(self, readout)(i).argmax(axis=-1) for i in (j, j - 1))
            if (now != before).any():
                break
            count += 1
        return count

    def unchanged_positions(self, k):
        return self.unchanged(k, "positions")


# The rule, its threshold, the name of its value in `Alone`, and when a sample has converged.
RULES = {
    "norm": (UpdateNorm(), 0.1, "norm", np.less),
    "relative": (RelativeUpdateNorm(), 0.3, "relative", np.less),
    "halting": (HaltingProbability(head), 0.6, "halting", np.greater),
    "unchanged": (UnchangedPrediction(scores), 3, "unchanged", np.greater_equal),
    "positions": (UnchangedPrediction(positions), 3, "unchanged_positions", np.greater_equal),
    "change": (ReadoutChange(scores), 0.01, "change", np.less),
    "change of positions": (ReadoutChange(positions), 0.01, "change_of_positions", np.less),
}


def problem(dtype=tf.float64, seed=5):
    """Return x(0), weights, drive, and the weights of the readouts."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(0.03, 3, SAMPLES)[:, None]
    angle = 0.9
    W = 0.85 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    start = {
        "x": scales * rng.normal(size=(SAMPLES, 2)),
        "sum": scales[:, None] * rng.normal(size=(SAMPLES, 1, 2)),
    }
    drive = 0.1 * scales * rng.normal(size=(SAMPLES, 2))
    readout = (2 * rng.normal(size=2), 3 * rng.normal(size=(2, 4)))
    return tf.nest.map_structure(lambda z: tf.constant(z, dtype), (start, (W,), drive, readout))


def run(tensors, name, min_unroll=1, compaction_cost=0.5, max_unroll=UPDATES, gradient="unroll"):
    start, weights, drive, readout = tensors
    rule, threshold, _, _ = RULES[name]
    return unroll_adaptive(
        Turn().bind((*weights, *readout), (drive,)),
        start,
        max_unroll,
        threshold,
        gradient,
        compaction_cost,
        rule,
        min_unroll,
    )


def expected(tensors, name, min_unroll=1):
    """Return the depths and whether each sample converged."""
    _, threshold, value, met = RULES[name]
    found = []
    for n in range(SAMPLES):
        alone = Alone(tensors, n)
        for k in range(1, UPDATES + 1):
            converged = met(getattr(alone, value)(k), threshold)
            if converged and k >= min_unroll:
                break
        found.append((k, converged, alone.states[k]))
    return found


@pytest.mark.parametrize("compaction_cost", [0.0, 0.5, 1e30])
@pytest.mark.parametrize("min_unroll", [1, 4])
@pytest.mark.parametrize("name", RULES)
def test_a_sample_stops_where_a_loop_in_numpy_does(name, min_unroll, compaction_cost):
    tensors = problem()
    end = run(tensors, name, min_unroll, compaction_cost)
    depth, converged, states = zip(*expected(tensors, name, min_unroll), strict=True)
    # A test in which all stop at once shows nothing.
    assert len(set(depth)) > 2
    np.testing.assert_array_equal(end.depth, depth)
    np.testing.assert_array_equal(end.status == Status.CONVERGED, converged)
    for n, (x, total) in enumerate(states):
        np.testing.assert_allclose(end.state["x"][n], x, rtol=1e-12)
        np.testing.assert_allclose(end.state["sum"][n], total, rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_a_sample_alone_is_as_in_the_batch_in_a_graph(name):
    start, weights, drive, readout = problem(tf.float32)
    rule, threshold, _, _ = RULES[name]

    def traced(samples):
        part = tf.nest.map_structure(lambda z: z[samples], (start, drive))
        return tf.function(
            lambda: call_traced_once(
                unroll_adaptive,
                Turn().bind((*weights, *readout), (part[1],)),
                part[0],
                tf.constant(UPDATES),
                tf.constant(threshold, tf.float32),
                rule=rule,
            )
        )()

    whole = traced(slice(None))
    for n in range(SAMPLES):
        alone = traced(slice(n, n + 1))
        assert alone.depth[0] == whole.depth[n]
        assert alone.status[0] == whole.status[n]
        np.testing.assert_allclose(alone.state["x"][0], whole.state["x"][n], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", RULES)
def test_nan_in_one_sample_stops_it_and_touches_no_other(name):
    tensors = problem()
    clean = run(tensors, name)
    start, weights, drive, readout = tensors
    bad = tf.tensor_scatter_nd_update(drive, [[2, 0]], tf.constant([np.nan], tf.float64))
    end = run((start, weights, bad, readout), name, min_unroll=1)
    assert end.depth[2] == 1
    assert end.status[2] == Status.NOT_FINITE
    others = [n for n in range(SAMPLES) if n != 2]
    for found, wanted in zip(tf.nest.flatten(end), tf.nest.flatten(clean), strict=True):
        # Products of other batch sizes may round differently.
        np.testing.assert_allclose(tf.gather(found, others), tf.gather(wanted, others), rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_a_sample_that_is_not_finite_stops_before_the_smallest_number_of_updates(name):
    start, weights, drive, readout = problem()
    bad = {**start, "x": tf.fill(start["x"].shape, tf.constant(np.inf, tf.float64))}
    bad["sum"] = tf.fill(start["sum"].shape, tf.constant(np.inf, tf.float64))
    end = run((bad, weights, drive, readout), name, min_unroll=5)
    np.testing.assert_array_equal(end.depth, 1)
    np.testing.assert_array_equal(end.status, Status.NOT_FINITE)


@pytest.mark.parametrize("gradient", ["unroll", "recompute"])
@pytest.mark.parametrize("name", RULES)
def test_gradients_are_those_of_a_python_loop(name, gradient):
    tensors = start, weights, drive, readout = problem()
    depths = tf.constant([k for k, _, _ in expected(tensors, name)])
    g = tf.nest.map_structure(
        lambda z: tf.constant(np.random.default_rng(8).normal(size=z.shape)), start
    )

    def product(state):
        return tf.add_n([tf.reduce_sum(a * state[key]) for key, a in g.items()])

    watched = (start, weights, drive)
    with tf.GradientTape() as tape:
        tape.watch((watched, readout))
        loss = product(run(tensors, name, gradient=gradient).state)
    found, of_readout = tape.gradient(loss, (watched, readout))
    with tf.GradientTape() as tape:
        tape.watch(watched)
        state = start
        for k in range(UPDATES):
            new, _ = Turn().step(state, k, weights, (drive,))
            moved = depths > k
            state = {
                key: tf.where(tf.reshape(moved, [-1] + [1] * (z.shape.rank - 1)), new[key], z)
                for key, z in state.items()
            }
        loss = product(state)
    wanted = tape.gradient(loss, watched)
    for z in of_readout:
        np.testing.assert_array_equal(z, 0)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_change_of_zero_is_small_beside_a_state_of_zero():
    @dataclasses.dataclass(frozen=True)
    class Halve(Update):
        def step(self, state, k, weights, drives):
            return 0.5 * state, -0.5 * state

    x = tf.constant([[0.0], [4.0]])
    end = unroll_adaptive(Halve().bind(), x, 5, 1e-3, rule=RelativeUpdateNorm())
    # Halving changes a state by as much as remains, at every size.
    np.testing.assert_array_equal(end.depth, [1, 5])


def test_logits_of_minus_infinity_are_no_error():
    @dataclasses.dataclass(frozen=True)
    class Halve(Update):
        def step(self, state, k, weights, drives):
            return 0.5 * state, -0.5 * state

    def masked_scores(state, weights, drives):
        return tf.concat([state, tf.fill(tf.shape(state), -np.inf)], axis=1)

    end = unroll_adaptive(
        Halve().bind(), tf.constant([[1.0, 3.0]]), 9, 0.01, rule=ReadoutChange(masked_scores)
    )
    p = [1 / (1 + np.exp(2 * 0.5**k)) for k in range(10)]
    found = [
        a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)) for b, a in itertools.pairwise(p)
    ]
    assert end.depth[0] == 1 + next(k for k, value in enumerate(found) if value < 0.01)
    assert end.status[0] == Status.CONVERGED
