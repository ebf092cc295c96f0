"""Tied residual stages: loops in NumPy, closed forms, untied stages with copied weights."""

import dataclasses
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.unrolling import Status
from tests.support.tied_stages import (
    CAPPED,
    EPSILON,
    FILTERS,
    IMAGE,
    images,
    make_slow_stage,
    make_stage,
    untied_copy,
)


@pytest.fixture
def numpy_loop(conv_matrix):
    """Return a function that runs a tied stage in float64, each sample by itself."""

    def f(stage, z):
        def value(name):
            return np.asarray(getattr(stage, name).numpy(), np.float64)

        y = z
        for number in "12":
            scale = value(f"gamma{number}") / np.sqrt(value(f"variance{number}") + EPSILON)
            y = np.maximum(scale * (y - value(f"mean{number}")) + value(f"beta{number}"), 0)
            y = (conv_matrix(value(f"kernel{number}"), *IMAGE) @ y.ravel()).reshape(y.shape)
        return y if stage.lipschitz_cap is None else y / value("divisor")

    def run(stage, x, threshold):
        states, changes = [], []
        for sample in np.asarray(x, np.float64):
            z, norms = sample, []
            while len(norms) < stage.max_unroll:
                new = (z if stage.skip_from == "previous" else sample) + f(stage, z)
                norms.append(np.linalg.norm(new - z))
                z = new
                if threshold is not None and norms[-1] < threshold:
                    break
            states.append(z)
            changes.append(norms)
        return np.stack(states), changes

    return run


@pytest.mark.parametrize("settings", [{}, CAPPED], ids=["previous", "capped, stage input"])
@pytest.mark.parametrize("schedule", [None, [0, 1], [], [0, 1, 2, 3, 3, 3]], ids=str)
def test_of_a_fixed_depth_it_is_an_untied_stage_of_equal_blocks(settings, schedule):
    stage = make_stage(**settings)
    copy, x = untied_copy(stage), images()
    expected = copy(x, schedule=schedule)
    got = stage(x, schedule=schedule, return_depth=True)
    np.testing.assert_allclose(got.state, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(got.depth, [4 if schedule is None else len(schedule)] * 6)
    z = images(seed=2)
    for k in (0, 3, tf.constant(2)):
        np.testing.assert_allclose(stage.update(z, x, k), copy.update(z, x, 0), atol=1e-4)
    for weight in stage.trainable_variables:
        assert not weight.path.endswith("/stack")
        assert weight.shape == getattr(copy, weight.name).shape[1:]


@pytest.mark.parametrize("settings", [CAPPED, {"lipschitz_cap": 0.3}, {"skip_from": "stage_input"}])
@pytest.mark.parametrize("graph", [False, True])
def test_each_sample_stops_as_in_a_numpy_loop(settings, graph, numpy_loop):
    keras.config.set_dtype_policy("float64")
    stage = make_stage(20, threshold=0.01, **settings)
    x = images(dtype=np.float64)
    run = tf.function(stage) if graph else stage
    state, depth, status = run(x, return_depth=True)
    expected, changes = numpy_loop(stage, x, 0.01)
    np.testing.assert_allclose(state, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(depth, [len(norms) for norms in changes])
    ends = [Status.CONVERGED if norms[-1] < 0.01 else Status.MAX_UNROLL for norms in changes]
    np.testing.assert_array_equal(status, ends)
    if settings is CAPPED:
        assert len(set(depth.numpy())) > 1
        assert set(ends) == {Status.CONVERGED}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [1e-1, 1e-3, 1e-5])
def test_no_sample_is_deeper_than_the_cap_allows(seed, threshold, numpy_loop):
    stage = make_stage(300, seed, threshold=threshold, **CAPPED)
    x = images(seed=seed)
    _, depth, status = stage(x, return_depth=True)
    _, changes = numpy_loop(stage, x, threshold)
    first = np.array([norms[0] for norms in changes])
    assert (first > threshold).any()
    bounds = np.maximum(1, 1 + np.log(threshold / first) / np.log(0.95))
    assert (depth.numpy() <= bounds).all()
    np.testing.assert_array_equal(status, Status.CONVERGED)


@pytest.mark.parametrize("cap", [0.95, 0.8])
def test_the_slowest_function_attains_the_bound(cap):
    # In closed form: z(k) = x (1 + c + ... + c^k) for x >= 0, with changes x c^k.
    stage = make_slow_stage(cap, threshold=1e-3)
    x = np.abs(images()) + 0.01
    state, depth, status = stage(x, return_depth=True)
    rate = 2 / 1.001 / float(stage.divisor)
    assert cap * 0.999 < rate <= cap
    first = rate * np.linalg.norm(x.reshape(len(x), -1), axis=1)
    depths = np.floor(1 + np.log(1e-3 / first) / np.log(rate)) + 1
    np.testing.assert_array_equal(depth, depths)
    np.testing.assert_array_equal(status, Status.CONVERGED)
    (row,) = stage.certificate_rows(IMAGE)
    assert row.factor == pytest.approx(rate, rel=4e-4)
    assert row.holds
    for change, made in zip(first, depths, strict=True):
        assert made <= row.depth_bound(change) <= made + 1
    # The distance to the fixed point, x / (1 - rate), is that of all changes to come.
    distance = np.linalg.norm((np.asarray(state) - x / (1 - rate)).reshape(len(x), -1), axis=1)
    assert (distance <= rate / (1 - rate) * 1e-3 * 1.01).all()


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.5, 0.625, 0.75, 0.875])
@pytest.mark.parametrize("first", [1.0, 1.5, 10.0])
def test_the_bound_is_the_depth_of_the_slowest_sample(factor, first):
    # Rational numbers: a sample whose norm equals the threshold makes one more update.
    (row,) = make_stage(1000, threshold=1e-3, **CAPPED).certificate_rows(IMAGE)
    row = dataclasses.replace(row, factor=factor)
    equal = [Fraction(first) * Fraction(factor) ** k for k in range(9)]
    thresholds = [float(t) for t in equal if t and Fraction(float(t)) == t]
    for threshold in [*thresholds, 0.7 * first, 1.01 * first, 1e3 * first, 1e-3 * first]:
        change, depth = Fraction(first), 1
        while not change < Fraction(threshold):
            change, depth = change * Fraction(factor), depth + 1
        assert row.depth_bound(first, threshold) == depth
    assert row.depth_bound(0.0) == 1


def test_a_row_bounds_the_depth_and_says_when_it_cannot():
    stage = make_stage(50, threshold=1e-3, name="s", **CAPPED)
    (row,) = stage.certificate_rows(IMAGE)
    assert (row.name, row.threshold, row.max_unroll) == ("s", 1e-3, 50)
    assert 0.9 < row.factor <= 0.95 * 1.001
    assert row.depth_bound(9e-4) == 1
    assert row.depth_bound(2e-3) == np.ceil(1 + np.log(1 / 2) / np.log(row.factor))
    assert row.depth_bound(2e-3, threshold=1e-3 / 4) == np.ceil(1 - np.log(8) / np.log(row.factor))
    assert row.depth_bound(1e9) == 50
    for change in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"`first_change` must be .*first_change={change}"):
            row.depth_bound(change)
    assert "one fixed point" in row.guarantee
    stage.threshold = None
    with pytest.raises(ValueError, match="`threshold` must be a positive number"):
        stage.certificate_rows(IMAGE)[0].depth_bound(1.0)
    (free,) = make_stage(50, threshold=1e-3, lipschitz_cap=0.95).certificate_rows(IMAGE)
    assert not free.holds
    assert free.guarantee is None
    assert free.factor == pytest.approx(1 + free.capped_bound)
    with pytest.raises(ValueError, match=r"no bound of the depth .* not a contraction"):
        free.depth_bound(1.0)


@pytest.mark.parametrize("norm", ["2", "infinity"])
@pytest.mark.parametrize("skip_from", ["previous", "stage_input"])
def test_its_lipschitz_bound_is_that_of_equal_blocks(norm, skip_from):
    stage = make_stage(3, skip_from=skip_from, lipschitz_cap=0.5)
    copy = untied_copy(stage)
    bounds = [s.lipschitz_gain([1.0], norm, s.certificate_rows(IMAGE), {}) for s in (stage, copy)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-5)
    short = stage.lipschitz_gain([1.0], norm, stage.certificate_rows(IMAGE), {"schedule": [0]})
    assert short < bounds[0]


def test_all_updates_of_a_call_normalise_by_the_statistics_of_the_first(numpy_loop, conv_matrix):
    stage, x = make_stage(5, **CAPPED), images()
    before = {weight.name: weight.numpy() for weight in stage.weights}
    state = stage(x, training=True)
    # The statistics of the batch, from what they moved.
    batch = make_stage(5, **CAPPED)
    for name in ("mean1", "variance1", "mean2", "variance2"):
        moved = (getattr(stage, name).numpy() - 0.9 * before[name]) / 0.1
        getattr(batch, name).assign(moved)
    np.testing.assert_allclose(batch.mean1, x.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(batch.variance1, x.var(axis=(0, 1, 2)), rtol=1e-4)
    batch.divisor.assign(stage.divisor)
    # For these the cap holds, although the vectors were those of other statistics.
    scales = [batch.gamma1 / np.sqrt(batch.variance1 + EPSILON),
              batch.gamma2 / np.sqrt(batch.variance2 + EPSILON)]  # fmt: skip
    folded = before["kernel1"] * np.asarray(scales[0])[:, None] * np.asarray(scales[1])
    norms = [np.linalg.norm(conv_matrix(k, *IMAGE), 2) for k in (folded, before["kernel2"])]
    assert 0.945 < np.prod(norms) / float(stage.divisor) <= 0.95 * (1 + 1e-5)
    expected, _ = numpy_loop(batch, x, None)
    np.testing.assert_allclose(state, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("policy", "threshold"), [("mixed_float16", 1e-4), ("mixed_bfloat16", 0.01)]
)
def test_mixed_precision_keeps_the_bound_of_the_depth(policy, threshold, training):
    # Rounded to half precision f has cycles: 6 of the 16 samples would make all updates.
    rng, size = np.random.default_rng(0), 16
    kernels = 0.02 * rng.normal(size=(2, 3, 3, size, size))
    kernels[:, 1, 1] += np.eye(size)
    shifts = rng.normal(size=(2, size))

    def make(dtype):
        stage = ki.ResidualStage(size, 400, threshold=threshold, tied=True, dtype=dtype, **CAPPED)
        stage.build((None, 8, 8, size))
        for number in (0, 1):
            getattr(stage, f"kernel{number + 1}").assign(kernels[number])
            getattr(stage, f"beta{number + 1}").assign(shifts[number])
        stage.converge_cap()
        return stage

    half, full = make(policy), make("float32")
    x = tf.cast(3 * rng.normal(size=(16, 8, 8, size)), half.compute_dtype)
    first = np.linalg.norm(np.reshape(full.update(x, x) - tf.cast(x, tf.float32), (16, -1)), axis=1)
    (row,) = half.certificate_rows((8, 8))
    expected = full(x, training=training, return_depth=True)
    state, depth, status = half(x, training=training, return_depth=True)
    np.testing.assert_array_equal(status, Status.CONVERGED)
    if not training:
        assert (depth <= [row.depth_bound(change) for change in first]).numpy().all()
        assert row.depth_bound(first.max()) < 300
    # The result is that of float32, rounded once.
    np.testing.assert_array_equal(depth, expected.depth)
    assert state.dtype == half.compute_dtype
    np.testing.assert_array_equal(state, tf.cast(expected.state, state.dtype))
    assert {weight.dtype for weight in half.weights} == {"float32"}


def test_an_empty_batch_changes_no_statistic():
    stage = make_stage(threshold=1e-3, gradient="implicit", **CAPPED)
    before = {name: getattr(stage, name).numpy() for name in ("mean1", "variance2")}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(stage(images()[:0], training=True))
    for gradient in tape.gradient(loss, stage.trainable_variables):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    for name, value in before.items():
        np.testing.assert_allclose(getattr(stage, name), value, rtol=1e-6)


def test_its_depth_can_be_set():
    inputs = keras.Input((*IMAGE, FILTERS))
    stage = make_stage(50, threshold=1e-2, **CAPPED)
    untied = ki.ResidualStage(FILTERS, 2)
    pooled = keras.layers.GlobalAveragePooling2D()(untied(stage(inputs)))
    model = ki.IterativeModel(inputs, pooled)
    run = tf.function(lambda x: stage(x, return_depth=True).depth)
    x, before = images(), run(images())
    ki.set_depth(model, threshold=1e-5, max_unroll=300)
    assert (stage.threshold, stage.max_unroll, stage.blocks) == (1e-5, 300, 300)
    assert (untied.threshold, untied.max_unroll) == (None, 2)
    assert (run(x) > before).numpy().all()
    assert ki.processing_depth(model) == 302
    np.testing.assert_array_equal(ki.with_depth(model)(x)["depth"][:, 0], run(x))
    ki.set_depth(model, threshold=None, max_unroll=7)
    np.testing.assert_array_equal(stage(x, return_depth=True).depth, [7] * 6)
    twin = ki.ResidualStage.from_config(stage.get_config())
    assert (twin.tied, twin.blocks, twin.threshold) == (True, 7, None)


def test_its_indices_are_those_of_equal_blocks():
    stage = make_stage(3, **CAPPED)
    x, labels = images(64), np.arange(64) % FILTERS
    reports = []
    for layer in (stage, untied_copy(stage)):
        inputs = keras.Input((*IMAGE, FILTERS))
        model = ki.IterativeModel(inputs, keras.layers.GlobalAveragePooling2D()(layer(inputs)))
        labels = np.argmax(model.predict(x, verbose=0), axis=-1)
        reports.append(ki.measure_indices(model, (x, labels), resamples=10))
    for name in ("convergence", "recurrence", "divergence"):
        np.testing.assert_array_equal(*(getattr(report, name) for report in reports))
    stage.threshold = 1e-3
    inputs = keras.Input((*IMAGE, FILTERS))
    model = ki.IterativeModel(inputs, keras.layers.GlobalAveragePooling2D()(stage(inputs)))
    with pytest.raises(ValueError, match=r"stops each sample by a threshold.*threshold=None"):
        ki.measure_indices(model, (x, labels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.1}, "`threshold` needs `tied=True`.* Received: threshold=0.1"),
        ({"tied": True, "threshold": -1}, "`threshold` must lie in .*threshold=-1"),
        ({"tied": True, "blocks": 0}, "`blocks` must be an integer of at least 1"),
        ({"gradient": "implicit", **CAPPED}, "needs an update that contracts.*tied=False"),
        ({"gradient": "implicit", "tied": True, "lipschitz_cap": 0.95}, "skip_from='previous'"),
        ({"gradient": "implicit", "tied": True, **CAPPED, "lipschitz_cap": 1}, "lipschitz_cap=1"),
        ({"gradient": "implicit", "tied": True, "skip_from": "stage_input"}, "lipschitz_cap=None"),
        ({"gradient": "frozen", "tied": True}, "`gradient` must be one of"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ki.ResidualStage(**{"filters": 4, "blocks": 2, **settings})


def test_an_untied_stage_has_no_depth_to_set():
    stage = ki.ResidualStage(FILTERS, 3)
    for name, value in (("max_unroll", 2), ("threshold", 0.1)):
        with pytest.raises(ValueError, match=f"`{name}`.*tied.*Received: {name}={value}") as error:
            setattr(stage, name, value)
        assert str(value) in str(error.value)
    stage.threshold = None
    inputs = keras.Input((*IMAGE, FILTERS))
    with pytest.raises(ValueError, match="at least one block whose depth"):
        ki.set_depth(ki.IterativeModel(inputs, stage(inputs)), max_unroll=2)


@pytest.mark.parametrize("k", [-1, 4])
def test_bad_updates_and_schedules(k):
    stage = make_stage()
    with pytest.raises(ValueError, match="`k` must be from 0 to 3"):
        stage.update(images(), images(), k)
    with pytest.raises(ValueError, match="`schedule` must be a sequence of block numbers"):
        stage(images(), schedule=[k])
