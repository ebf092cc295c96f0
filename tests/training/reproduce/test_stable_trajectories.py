"""Bounds of trajectories: against the paper's formulas in NumPy, and against what breaks them."""

import numpy as np
import pytest

from keras_iterconv.layers.protocol import rows_of
from tests.support.numpy_double import NumpyDouble
from training.reproduce.stable_blocks import IMAGE, KINDS, draw_setting
from training.reproduce.stable_jacobians import (
    measure_jacobians,
    measure_oscillation,
    state_jacobian,
)
from training.reproduce.stable_trajectories import (
    decay,
    follow,
    geometry_of,
    largest_expansion,
    limit_of,
    slope_floor,
    worst_share,
)

UPDATES = 12


def double_of(block, k=0):
    return NumpyDouble(block, k, IMAGE[:2])


@pytest.fixture(scope="module", params=[(kind, drive) for kind in KINDS for drive in ("mild",)])
def setting(request):
    return draw_setting(request.param[0], "tanh", request.param[1])


def flat(states):
    return states.reshape(*states.shape[:2], -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_trajectory_and_its_slopes_are_those_of_the_equations(kind, tied):
    block, inputs, _, start, _ = draw_setting(kind, "tanh", tied=tied, updates=UPDATES)
    states = follow(block, inputs, start, UPDATES)
    x, slopes = start, []
    for k in range(UPDATES):
        double = double_of(block, k)
        slopes.append(double.slopes(x, inputs).min())
        x = x + double.change(x, inputs)
        np.testing.assert_allclose(states[k + 1], x, rtol=1e-10, atol=1e-12)
    assert slope_floor(block, states) == pytest.approx(min(slopes), rel=1e-6)


def test_relu_has_slopes_of_zero_and_one():
    block, inputs, _, start, _ = draw_setting("dense", "relu")
    states = follow(block, inputs, start, 3)
    assert slope_floor(block, states) == 0
    # All units of this made-up trajectory rise.
    assert slope_floor(block, np.arange(4.0)[:, None, None] * np.ones((4, 2, 3))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_blocks_weights_lie_on_its_constraints(kind):
    (row,) = rows_of(draw_setting(kind, "tanh").block, None)
    assert row.holds
    assert row.within_bound
    if kind == "dense":
        # On the bound of Algorithm 1: the squares of the eigenvalues of R'R add up to delta^2.
        R = draw_setting(kind, "tanh").block.R.numpy()
        assert np.linalg.norm(R.T @ R) == pytest.approx(1 - 2 * 0.05, rel=1e-6)
    else:
        assert row.excess == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_proven_rate_bounds_the_norm_of_every_jacobian(kind, floor):
    """Slopes from the floor to 1: the operator norm of I + h S A, in the block's norm."""
    block = draw_setting(kind, "tanh").block
    geometry, double = geometry_of(block), double_of(block)
    rng = np.random.default_rng(0)
    root = None
    if kind == "dense":
        root = np.linalg.cholesky(-double.A).T
    largest = 0.0
    for _ in range(50):
        slopes = rng.choice([floor, 1.0], len(double.A))
        J = double.jacobian(slopes)
        if kind == "dense":
            largest = max(largest, np.linalg.norm(root @ J @ np.linalg.inv(root), 2))
        else:
            largest = max(largest, np.abs(J).sum(axis=1).max())
    assert largest <= geometry.rate(floor) + 1e-12
    assert geometry.rate(0.0) == pytest.approx(1)
    assert geometry.rate(1.0) < 1
    if kind == "convolutional" and floor == 0.3:
        # The bound is the largest row, so that some of 50 draws come near.
        assert largest > 0.99 * geometry.rate(floor)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drive_bounds_the_effect_of_an_input(kind):
    setting = draw_setting(kind, "tanh")
    geometry, double = geometry_of(setting.block), double_of(setting.block)
    w = setting.perturbation
    rng = np.random.default_rng(0)
    slopes = rng.uniform(0, 1, (len(w), len(double.A)))
    effect = slopes * (w.reshape(len(w), -1) @ double.B.T)
    norms = geometry.norm(effect.reshape(setting.start.shape))
    assert np.all(norms <= geometry.drive * geometry.input_norm(w) * (1 + 1e-12))
    assert norms.max() > 0.05 * (geometry.drive * geometry.input_norm(w)).max()


def test_the_norm_of_a_dense_block_is_that_of_p():
    block, *_ = draw_setting("dense", "tanh")
    d = np.random.default_rng(1).normal(size=(2, 3, 16))
    A = double_of(block).A
    expected = [[np.sqrt(-each @ A @ each) for each in row] for row in d]
    np.testing.assert_allclose(geometry_of(block).norm(d), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_solves_the_equations(kind):
    block, inputs, _, start, _ = draw_setting(kind, "tanh")
    limit = limit_of(block, inputs, start, 2000)
    assert np.abs(double_of(block).preactivation(limit, inputs)).max() < 1e-9


def test_a_share_above_one_is_a_broken_bound():
    first = np.array([2.0, 4.0])
    bounds = decay(0.5, first, 3)
    np.testing.assert_allclose(bounds[:, 1], [4, 2, 1, 0.5])
    assert worst_share(bounds, bounds) == pytest.approx(1)
    assert worst_share(bounds * [[1], [1], [3], [1]], bounds) == pytest.approx(3)
    assert worst_share(np.zeros((2, 1)), np.zeros((2, 1))) == 0
    # Rounding errors of a state that has settled break no bound.
    assert worst_share(np.array([[1.0], [1e-16]]), np.array([[1.0], [1e-20]])) < 1


def test_an_expansion_is_found_in_the_norm_of_its_update():
    block, inputs, _, start, other = draw_setting("convolutional", "tanh", updates=5)
    paths = [follow(block, inputs, x, 5) for x in (start, other)]
    assert largest_expansion(block, *paths) < 1
    paths[0][3] = paths[1][3] + 7 * (paths[0][2] - paths[1][2])
    assert largest_expansion(block, *paths) == pytest.approx(7)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_are_those_of_the_equations(kind):
    block = draw_setting(kind, "tanh").block
    A = double_of(block).A
    bias = block.weights[-1].numpy()
    np.testing.assert_allclose(state_jacobian(block), A, atol=1e-9)
    np.testing.assert_array_equal(block.weights[-1].numpy(), bias)
    found = measure_jacobians(block)
    J = np.eye(len(A)) + block.step_size * A
    assert found["radius"] == pytest.approx(np.abs(np.linalg.eigvals(J)).max(), rel=1e-6)
    assert found["drawn_radius"] < 1
    if kind == "convolutional":
        assert found["norm"] == pytest.approx(np.abs(J).sum(axis=1).max(), rel=1e-6)
        assert found["lemma"] < 1e-9


def test_a_kernel_that_is_not_the_matrix_breaks_the_lemma(monkeypatch):
    from training.reproduce import stable_jacobians

    block = draw_setting("convolutional", "tanh").block
    A = state_jacobian(block)
    A[20, 3] += 0.25
    assert stable_jacobians._lemma_error(block, A) >= 0.01


@pytest.mark.parametrize("relaxed", [False, True])
def test_only_a_relaxed_delta_oscillates(relaxed):
    found = measure_oscillation(relaxed)
    bound = 2 * 0.95 if relaxed else 0.9
    # R has rank 1: its eigenvalue is the bound, and A's are -bound - shift and -shift.
    assert found["eigenvalues"] == pytest.approx([1 - bound - 0.05, 0.95], rel=1e-5)
    assert (found["turns"] > 5) == relaxed
    assert abs(found["last"]) < 1
    np.testing.assert_allclose(found["curve"][1] / found["curve"][0], 0.05 - relaxed, atol=1e-2)
