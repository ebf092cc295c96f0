"""The row of each kind of block, against dense matrices, NumPy and SciPy in float64."""

import keras
import numpy as np
import pytest
import scipy.sparse.linalg

import keras_iterconv as ki
from keras_iterconv.certificates.certification import block_rows_of
from keras_iterconv.layers.rules.conv_rule import conv_row_factors

IMAGE = (6, 5)
FILTERS = 4


def rows_of(layer, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    # Without the bound and the ascent, which other files test.
    (rows,) = block_rows_of(model).values()
    return rows


@pytest.fixture
def true_norms(conv_matrix):
    """Return a function that computes both norms of f's block t by SciPy."""

    def norms(layer, t=None):
        def value(name):
            array = np.asarray(getattr(layer, name).numpy(), np.float64)
            return array if t is None else array[t]

        s1, s2 = (value(f"gamma{n}") / np.sqrt(value(f"variance{n}") + 1e-3) for n in (1, 2))
        kernels = s2 * value("kernel1") * s1[:, None], value("kernel2")
        matrices = (scipy.sparse.csr_array(conv_matrix(kernel, *IMAGE)) for kernel in kernels)
        return [
            scipy.sparse.linalg.svds(m, k=1, return_singular_vectors=False)[0] for m in matrices
        ]

    return norms


def randomize(layer, seed=0):
    layer.build((None, *IMAGE, FILTERS))
    rng = np.random.default_rng(seed)
    for name in ("gamma1", "gamma2", "beta1", "mean1", "variance1", "variance2"):
        getattr(layer, name).assign(rng.uniform(0.3, 2, getattr(layer, name).shape))
    return layer


@pytest.mark.parametrize("skip_from", ["previous", "stage_input"])
@pytest.mark.parametrize("cap", [None, 0.95])
def test_a_stage_has_a_row_for_each_f(skip_from, cap, true_norms):
    stage = ki.ResidualStage(FILTERS, 3, skip_from, lipschitz_cap=cap, name="stage")
    randomize(stage).converge_cap()
    rows = rows_of(stage, (*IMAGE, FILTERS))
    assert [row.name for row in rows] == ["stage[0]", "stage[1]", "stage[2]"]
    for t, row in enumerate(rows):
        norm1, norm2 = true_norms(stage, t)
        assert row.norm1 == pytest.approx(norm1, rel=2e-4)
        assert row.norm2 == pytest.approx(norm2, rel=2e-4)
        # From above: it is called a bound.
        assert row.bound == pytest.approx(norm1 * norm2, rel=4e-4)
        assert row.bound >= norm1 * norm2 * (1 - 1e-6)
        divisor = 1.0 if cap is None else max(norm1 * norm2 / 0.95, 1)
        assert row.divisor == pytest.approx(divisor, rel=4e-4)
        assert row.capped_bound == pytest.approx(norm1 * norm2 / divisor, rel=8e-4)
        assert row.cap_holds is (None if cap is None else True)
        assert row.factor == pytest.approx(row.capped_bound + (skip_from == "previous"))
        assert row.holds is (cap is not None and skip_from == "stage_input")
        if skip_from == "previous":
            assert row.guarantee is None
            assert "not guaranteed" in row.reason
        else:
            assert "Banach" in row.reference


def test_a_stale_cap_breaks_the_guarantee_of_its_block_alone():
    stage = ki.ResidualStage(FILTERS, 3, "stage_input", lipschitz_cap=0.95)
    randomize(stage).converge_cap()
    stage.kernel2.assign(stage.kernel2 * np.array([1, 1.01, 1])[:, None, None, None, None])
    rows = rows_of(stage, (*IMAGE, FILTERS))
    assert [row.cap_holds for row in rows] == [row.holds for row in rows] == [True, False, True]
    # Still a contraction, yet not the one that was promised.
    assert rows[1].capped_bound == pytest.approx(0.95 * 1.01, rel=1e-3)
    assert "converge_caps" in rows[1].reason


def test_a_cap_of_one_or_more_is_no_contraction_and_no_cap_may_be_one():
    stage = randomize(ki.ResidualStage(FILTERS, 1, "stage_input", lipschitz_cap=1.5))
    stage.converge_cap()
    (row,) = rows_of(stage, (*IMAGE, FILTERS))
    assert row.cap_holds
    assert not row.holds
    free = ki.ResidualStage(FILTERS, 1, "stage_input", initial_gamma=0.01)
    (row,) = rows_of(free, (*IMAGE, FILTERS))
    assert row.factor < 1
    assert row.holds


def test_a_block_alone(true_norms):
    block = randomize(ki.ResidualBlock(FILTERS, lipschitz_cap=0.5, name="f"))
    block.converge_cap()
    (row,) = rows_of(block, (*IMAGE, FILTERS))
    assert (row.name, row.skip_from) == ("f", None)
    assert row.bound == pytest.approx(np.prod(true_norms(block)), rel=4e-4)
    assert row.factor == pytest.approx(0.5, rel=4e-4)
    assert row.holds
    assert "for z + f(z): no guarantee" in row.guarantee


@pytest.mark.parametrize("cap", [None, 0.9])
def test_the_image_s_size_must_be_known(cap):
    inputs = keras.Input((None, None, FILTERS))
    if cap is not None:
        with pytest.raises(ValueError, match="known height and width"):
            ki.ResidualStage(FILTERS, 1, lipschitz_cap=cap)(inputs)
        return
    model = keras.Model(inputs, ki.ResidualStage(FILTERS, 1, name="stage")(inputs))
    with pytest.raises(ValueError, match=r"'stage'.*known height and width"):
        ki.certify(model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("widest", [False, True])
def test_dense(tied, activation, widest, set_weights, make_inputs, numpy_double):
    settings = {"bound": 2 * 0.9, "step_size": 1.0} if widest else {"step_size": 0.3}
    layer = ki.NAISDense(
        6, max_unroll=4, tied=tied, activation=activation, shift=0.1, rank=2, **settings
    )
    set_weights(layer, make_inputs("dense"), "random")
    (row,) = rows_of(layer, (6,))
    doubles = [numpy_double(layer, k) for k in range(1 if tied else 4)]
    values = np.array([np.linalg.eigvals(d.A).real for d in doubles])
    jacobians = [np.linalg.eigvals(d.jacobian(np.ones(6))) for d in doubles]
    assert row.eigenvalue_min == pytest.approx(values.min(), abs=1e-6)
    assert row.eigenvalue_max == pytest.approx(values.max(), abs=1e-6)
    assert row.spectral_radius == pytest.approx(np.abs(jacobians).max(), abs=1e-6)
    assert row.step_times_norm == pytest.approx(layer.step_size * -values.min(), abs=1e-6)
    assert row.factor == row.spectral_radius
    assert row.norm == "P = -A"
    assert row.within_bound
    assert row.holds
    words = {
        (True, "tanh"): "one fixed point",
        (True, "relu"): "depends on x(0)",
    }.get((tied, activation), "not implied")
    assert words in row.guarantee


def test_dense_is_judged_by_its_worst_update():
    layer = ki.NAISDense(6, max_unroll=3, tied=False, step_size=0.5)
    layer.build((None, 6))
    R = layer.R.numpy()
    R[1] = 2.1 * np.eye(6)
    layer.R.assign(R)
    (row,) = rows_of(layer, (6,))
    # 0.5 (2.1^2 + 0.01)
    assert row.step_times_norm == pytest.approx(2.21, abs=1e-5)
    assert not row.holds
    assert not row.within_bound
    assert "2.21" in row.reason
    # The P-norm is what decides: over Algorithm 1's bound a small step is still stable.
    R[1] = 1.9 * np.eye(6)
    layer.R.assign(R)
    (row,) = rows_of(layer, (6,))
    assert row.holds
    assert not row.within_bound


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("center", ["trainable", "fixed"])
@pytest.mark.parametrize("step_size", [0.4, 1.0])
def test_conv(tied, activation, center, step_size, set_weights, make_inputs, numpy_double):
    layer = ki.NAISConv2D(
        6, max_unroll=3, tied=tied, activation=activation, center=center, step_size=step_size
    )
    inputs = make_inputs("conv")
    set_weights(layer, inputs, "random")
    (row,) = rows_of(layer, inputs.shape[1:])
    jacobians = []
    for k, factors in enumerate(conv_row_factors(layer)):
        double = numpy_double(layer, k)
        jacobians.append(double.jacobian(np.ones(len(double.A))))
        # Of each channel the largest row, one away from the border.
        sums = np.abs(jacobians[-1]).sum(axis=1).reshape(-1, 6)
        np.testing.assert_allclose(factors, sums.max(axis=0), atol=1e-6)
    assert len(jacobians) == (1 if tied else 3)
    worst = max(np.linalg.norm(jacobian, np.inf) for jacobian in jacobians)
    assert row.factor == pytest.approx(worst, abs=1e-6)
    assert row.factor <= 1 - step_size * layer.margin + 1e-6
    assert row.within_bound
    assert row.holds
    expected = 0 if center == "fixed" else np.abs(layer.delta.numpy()).max()
    assert row.delta == pytest.approx(expected)
    words = "one fixed point" if activation == "tanh" else "depends on x(0)"
    assert (words if tied else "all in one norm") in row.guarantee
    assert ("not implied" in row.guarantee) is not tied


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("what", ["tap", "delta", "margin"])
def test_conv_weights_set_by_hand_have_no_guarantee(what, tied):
    layer = ki.NAISConv2D(4, max_unroll=2, tied=tied)
    layer.build((None, *IMAGE, 4))
    at = () if tied else (1,)
    weight = layer.delta if what == "delta" else layer.C
    value = weight.numpy()
    if what == "tap":
        value[(*at, 0, 1, 2, 3)] += 0.5
    elif what == "delta":
        value[(*at, 3)] = -0.99
    else:
        # Within the norm's one, and not within the margin.
        mask = np.ones_like(value[at])
        mask[1, 1] -= np.eye(4)
        value[at] = mask * 0.995 / mask.sum(axis=(0, 1, 2))
    weight.assign(value)
    (row,) = rows_of(layer, (*IMAGE, 4))
    assert row.excess > 1e-3
    assert not row.within_bound
    assert not row.holds
    assert "Algorithm 2" in row.reason


def test_the_stored_centre_that_no_call_reads_does_not_count():
    layer = ki.NAISConv2D(4)
    layer.build((None, *IMAGE, 4))
    before = rows_of(layer, (*IMAGE, 4))[0]
    C = layer.C.numpy()
    C[1, 1, 2, 2] = 50
    layer.C.assign(C)
    assert rows_of(layer, (*IMAGE, 4))[0].factor == before.factor


def test_nan_has_no_guarantee():
    for layer, name, shape in (
        (ki.NAISDense(4), "R", (4,)),
        (ki.NAISConv2D(4), "C", (*IMAGE, 4)),
        (ki.ResidualStage(4, 1, "stage_input", lipschitz_cap=0.9), "kernel1", (*IMAGE, 4)),
    ):
        layer.build((None, *shape))
        weight = getattr(layer, name)
        weight.assign(weight * np.nan)
        (row,) = rows_of(layer, shape)
        assert not row.holds
        assert row.reason == "the weights are not finite"
        assert row.to_dict()["factor"] is None


def test_free_updates_and_foreign_blocks():
    class Own(ki.NAISDense):
        pass

    inputs = keras.Input((4,))
    state = Own(4, name="own")(inputs)
    state = ki.ResidualUpdate(0.5)([state, keras.layers.Dense(4)(state)])
    (own,), (free,) = block_rows_of(keras.Model(inputs, state)).values()
    assert not own.holds
    assert "without rules" in own.reason
    assert not free.holds
    assert free.guarantee is None
    assert free.step_size == 0.5
