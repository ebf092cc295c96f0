"""Updates of any form on structures of tensors, against loops over each sample alone."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import (
    GRADIENTS,
    MODES,
    Status,
    Update,
    call_traced_once,
    unroll_adaptive,
    unroll_anderson,
    unroll_fixed,
)

EXACT = [name for name, mode in MODES.items() if mode.exact]
SAMPLES, UPDATES, THRESHOLD = 5, 7, 0.08


@dataclasses.dataclass(frozen=True)
class TwoStates(Update):
    """A slow state `[N, 3]` and a fast one `[N, 2, 2]`, nonlinear in both, that drive each other.

    Neither the states before an update nor its slopes follow from the states after it.
    """

    tied: bool = True

    def step(self, state, k, weights, drives):
        W, V = weights if self.tied else (weight[k] for weight in weights)
        slow, fast = state["slow"], tf.reshape(state["fast"], [-1, 4])
        new_slow = tf.sin(slow @ W) * 0.6 + 0.1 * fast[:, :3] ** 2 + drives[0]
        new_fast = 0.5 * fast / (1 + tf.reduce_sum(fast**2, axis=1, keepdims=True)) + slow @ V
        new = {"slow": new_slow, "fast": tf.reshape(new_fast, tf.shape(state["fast"]))}
        return new, tf.nest.map_structure(tf.subtract, new, state)


def problem(dtype=tf.float64, tied=True):
    """Return x(0), the weights, and the drives, of samples that stop one after another."""
    rng = np.random.default_rng(3)
    lead = () if tied else (UPDATES,)
    scales = np.geomspace(0.02, 2, SAMPLES)[:, None]
    slow = scales * rng.normal(size=(SAMPLES, 3))
    fast = (scales * rng.normal(size=(SAMPLES, 4))).reshape(SAMPLES, 2, 2)
    weights = [0.5 * rng.normal(size=(*lead, *shape)) for shape in ((3, 3), (3, 4))]
    drive = 0.2 * scales * rng.normal(size=(SAMPLES, 3))
    return tf.nest.map_structure(
        lambda z: tf.constant(z, dtype), ({"slow": slow, "fast": fast}, tuple(weights), drive)
    )


def numpy_step(state, k, weights, drive, tied):
    """Return the next state of one sample, written anew."""
    W, V = weights if tied else [weight[k] for weight in weights]
    slow, fast = state
    flat = fast.ravel()
    new_fast = 0.5 * flat / (1 + flat @ flat) + slow @ V
    return np.sin(slow @ W) * 0.6 + 0.1 * flat[:3] ** 2 + drive, new_fast.reshape(2, 2)


def alone(n, threshold, tied, tensors):
    """Return the last state and the depth of one sample, by a loop in NumPy."""
    start, weights, drive = tf.nest.map_structure(lambda z: z.numpy(), tensors)
    state = start["slow"][n], start["fast"][n]
    for k in range(UPDATES):
        new = numpy_step(state, k, weights, drive[n], tied)
        change = np.concatenate([(a - b).ravel() for a, b in zip(new, state, strict=True)])
        state = new
        if threshold is not None and np.linalg.norm(change) < threshold:
            break
    return state, k + 1


def unroll(tensors, threshold, tied, gradient="unroll", run=None):
    state, weights, drive = tensors
    update = TwoStates(tied).bind(weights, (drive,))
    if threshold is None:
        return (run or unroll_fixed)(update, state, tf.constant(UPDATES), gradient=gradient)
    threshold = tf.constant(threshold, tf.float64)
    run = run or unroll_adaptive
    return run(update, state, tf.constant(UPDATES), threshold, gradient=gradient)


def loss_of(end, drive):
    # A sample's own factors, so that no two samples' gradients can be exchanged unseen.
    factors = 1 + tf.cast(tf.range(tf.shape(drive)[0]), drive.dtype)
    return tf.reduce_sum(factors[:, None] * tf.sin(end["slow"])) + tf.reduce_sum(
        factors[:, None, None] * end["fast"] ** 2
    )


def tape_of_python_loops(tensors, depths, tied):
    """Return the loss's gradients by TensorFlow's tape over a loop of each sample alone."""
    flat = tf.nest.flatten(tensors)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        state, weights, drive = tensors
        ends = []
        for n, depth in enumerate(depths):
            one = tf.nest.map_structure(lambda z, n=n: z[n : n + 1], state)
            for k in range(depth):
                one, _ = TwoStates(tied).step(one, k, weights, (drive[n : n + 1],))
            ends.append(one)
        end = tf.nest.map_structure(lambda *zs: tf.concat(zs, axis=0), *ends)
        loss = loss_of(end, drive)
    return [z.numpy() for z in tape.gradient(loss, flat)]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("threshold", [None, THRESHOLD])
@pytest.mark.parametrize("mode", ["eager", "graph", "traced once"])
def test_states_and_depths_are_those_of_loops_over_single_samples(threshold, tied, mode):
    tensors = problem(tied=tied)
    call = None
    if mode == "traced once":

        def call(update, *arguments, **options):
            loop = unroll_fixed if threshold is None else unroll_adaptive
            return call_traced_once(loop, update, *arguments, **options)

    def run(tensors):
        return unroll(tensors, threshold, tied, run=call)

    end, depth, status = (run if mode == "eager" else tf.function(run))(tensors)
    expected = [alone(n, threshold, tied, tensors) for n in range(SAMPLES)]
    depths = [depth for _, depth in expected]
    if threshold is not None and tied:
        assert len(set(depths)) >= 4
        np.testing.assert_array_equal(status[:2], [Status.CONVERGED] * 2)
    np.testing.assert_array_equal(depth, depths)
    for name, position in (("slow", 0), ("fast", 1)):
        values = [state[position] for state, _ in expected]
        np.testing.assert_allclose(end[name], values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("threshold", [None, THRESHOLD])
@pytest.mark.parametrize("gradient", EXACT)
def test_exact_gradients_are_those_of_tapes_over_python_loops(gradient, threshold, tied):
    tensors = problem(tied=tied)
    depths = [alone(n, threshold, tied, tensors)[1] for n in range(SAMPLES)]
    expected = tape_of_python_loops(tensors, depths, tied)
    flat = tf.nest.flatten(tensors)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        loss = loss_of(unroll(tensors, threshold, tied, gradient).state, tensors[2])
    for got, want in zip(tape.gradient(loss, flat), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("bad", ["slow", "fast", "drive"])
@pytest.mark.parametrize("threshold", [None, THRESHOLD])
@pytest.mark.parametrize("gradient", EXACT)
def test_a_sample_that_is_not_finite_touches_no_other(gradient, threshold, bad):
    tensors, others = problem(), [0, 1, 2, 4]

    def run(tensors):
        flat = tf.nest.flatten(tensors)
        with tf.GradientTape() as tape:
            tape.watch(flat)
            end = unroll(tensors, threshold, True, gradient)
            # The bad sample's loss is masked out, so that its gradient is zero.
            kept = tf.nest.map_structure(lambda z: tf.gather(z, others), end.state)
            loss = loss_of(kept, tf.gather(tensors[2], others))
        return end, tape.gradient(loss, flat)

    end, expected = run(tensors)
    state, weights, drive = tf.nest.map_structure(lambda z: z.numpy(), tensors)
    {**state, "drive": drive}[bad][3] = np.nan
    bad_end, got = run(tf.nest.map_structure(tf.constant, (state, weights, drive)))
    assert bad_end.status[3] == Status.NOT_FINITE
    np.testing.assert_array_equal(tf.gather(bad_end.depth, others), tf.gather(end.depth, others))
    for a, b in zip(tf.nest.flatten(bad_end.state), tf.nest.flatten(end.state), strict=True):
        np.testing.assert_array_equal(tf.gather(a, others), tf.gather(b, others))
    for a, b in zip(got, expected, strict=True):
        a, b = a.numpy(), b.numpy()
        assert np.isfinite(a).all()
        if len(a) == SAMPLES:
            a, b = a[others], b[others]
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gradient", sorted(set(GRADIENTS) - set(EXACT)))
def test_modes_that_need_more_of_an_update_say_so(gradient):
    with pytest.raises(ValueError, match="linear in the state"):
        unroll(problem(), None, True, gradient)


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match=r"`gradient` must be one of .*unroll\. Received: gradient='exact'"
    ):
        unroll(problem(), None, True, "exact")


def test_anderson_acceleration_is_for_euler_updates():
    state, weights, drive = problem()
    update = TwoStates(True).bind(weights, (drive,))
    with pytest.raises(ValueError, match=r"linear in the state.*Use `solver=.picard.`"):
        unroll_anderson(update, state, UPDATES, THRESHOLD)


def test_no_samples_and_one_precision():
    tensors = problem(tf.float32)
    none = tf.nest.map_structure(lambda z: z[:0], tensors[0]), tensors[1], tensors[2][:0]
    end = unroll(none, THRESHOLD, True)
    assert end.state["fast"].shape == (0, 2, 2)
    assert end.depth.shape == (0,)
    assert unroll(tensors, THRESHOLD, True).state["slow"].dtype == tf.float32


def test_a_state_of_integers_is_refused():
    state, weights, drive = problem()
    state = {**state, "slow": tf.cast(state["slow"], tf.int32)}
    with pytest.raises(ValueError, match=r"`state` must hold tensors of floating.*'int32'"):
        unroll((state, weights, drive), None, True)


@dataclasses.dataclass(frozen=True)
class Driven(Update):
    """An update with drives that are made once."""

    make_drives: Callable | None = None


@pytest.mark.parametrize(
    ("update", "tensors"),
    [(Driven(), {}), (Driven(lambda z: (z,)), {"drives": (tf.ones([1, 2]),)})],
    ids=["nothing makes drives of them", "drives too"],
)
def test_drive_inputs_that_would_have_no_gradient_are_refused(update, tensors):
    with pytest.raises(ValueError, match=r"`drive_inputs` must be empty unless.*Received: 1 "):
        update.bind(drive_inputs=(tf.ones([1, 2]),), **tensors)
