"""Algorithms 1 and 2, against the papers' loops in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv import projections
from keras_iterconv.projections import project_conv, project_delta, project_dense

# The sum of some tens of taps of the last overflows in float32.
SCALES = [0.01, 1.0, 100.0, 1e10, 1e30, 5e37]


def algorithm_1(R, shift, bound=None):
    bound = 1 - 2 * shift if bound is None else bound
    norm = np.linalg.norm(R.T @ R)
    return R * np.sqrt(bound) / np.sqrt(norm) if norm > bound else R


def algorithm_2(kernel, delta, margin, center_margin):
    kernel, delta = kernel.copy(), delta.copy()
    kh, kw, _, filters = kernel.shape
    for c in range(filters):
        delta[c] = min(max(delta[c], -1 + center_margin), 1 - center_margin)
        kernel[kh // 2, kw // 2, c, c] = -1 - delta[c]
        others = [i for i in np.ndindex(kernel.shape[:3]) if i != (kh // 2, kw // 2, c)]
        total = sum(abs(kernel[(*i, c)]) for i in others)
        budget = 1 - margin - abs(delta[c])
        for i in others:
            kernel[(*i, c)] *= budget / total if total > budget else 1
    return kernel, delta


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(5, 5), (2, 5), (1, 4)])
@pytest.mark.parametrize("bound", [None, 1.98])
def test_project_dense_is_algorithm_1(scale, shape, bound):
    R = (scale * np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    projected = project_dense(R, 0.01, bound).numpy()
    np.testing.assert_allclose(projected, algorithm_1(R.astype(np.float64), 0.01, bound), rtol=1e-5)
    if scale > 1:
        norm = np.linalg.norm(projected.astype(np.float64).T @ projected)
        assert norm == pytest.approx(bound or 0.98, rel=1e-5)
    if scale < 1:
        np.testing.assert_array_equal(projected, R)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 3)])
def test_project_conv_is_algorithm_2(scale, size):
    rng = np.random.default_rng(0)
    kernel = (scale * rng.normal(size=(*size, 4, 4))).astype(np.float32)
    delta = np.array([-3.0, -0.4, 0.0, 1e30], np.float32)
    got, got_delta = project_conv(kernel, delta, 0.02, 0.1)
    expected, expected_delta = algorithm_2(
        kernel.astype(np.float64), delta.astype(np.float64), 0.02, 0.1
    )
    # A float32 budget of 0.08 is a difference of numbers near one.
    np.testing.assert_allclose(got, expected, rtol=5e-6, atol=1e-38)
    np.testing.assert_allclose(got_delta, expected_delta, rtol=1e-6)


def test_taps_between_channels_at_the_centre_count():
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[1, 1] = 5.0
    got = project_conv(kernel, np.zeros(3, np.float32), 0.01, 0.05)[0].numpy()
    np.testing.assert_allclose(np.diagonal(got[1, 1]), -1)
    np.testing.assert_allclose(
        got[1, 1] - np.diag(np.diagonal(got[1, 1])), 0.495 * (1 - np.eye(3)), rtol=1e-6
    )


def test_inside_its_bound_a_kernel_keeps_all_but_its_centre():
    kernel = np.random.default_rng(0).uniform(-1e-3, 1e-3, (3, 3, 2, 2)).astype(np.float32)
    got = project_conv(kernel, np.array([0.3, -0.3], np.float32), 0.01, 0.05)[0].numpy()
    changed = got != kernel
    assert changed.sum() == 2
    np.testing.assert_allclose(np.diagonal(got[1, 1]), [-1.3, -0.7], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_second_projection_changes_nothing_but_rounding(dtype):
    epsilon = float(tf.experimental.numpy.finfo(dtype).eps) if dtype != "bfloat16" else 2**-7
    rng = np.random.default_rng(0)
    R = project_dense(tf.cast(rng.normal(size=(3, 5)), dtype), 0.1)
    assert R.dtype == dtype
    np.testing.assert_allclose(
        tf.cast(project_dense(R, 0.1), "float64"), tf.cast(R, "float64"), rtol=8 * epsilon
    )
    kernel, delta = project_conv(
        tf.cast(rng.normal(size=(3, 3, 4, 4)), dtype), tf.cast(rng.normal(size=4), dtype), 0.1, 0.2
    )
    assert kernel.dtype == delta.dtype == dtype
    again, delta_again = project_conv(kernel, delta, 0.1, 0.2)
    np.testing.assert_array_equal(delta_again, delta)
    # Sums of some tens of terms are rounded.
    np.testing.assert_allclose(
        tf.cast(again, "float64"), tf.cast(kernel, "float64"), rtol=32 * epsilon, atol=0
    )


def test_a_stack_is_projected_weight_by_weight():
    rng = np.random.default_rng(0)
    R = rng.normal(size=(3, 2, 5)) * [[[0.01]], [[1]], [[50]]]
    for k, projected in enumerate(project_dense(R, 0.1)):
        np.testing.assert_allclose(projected, algorithm_1(R[k], 0.1), rtol=1e-12)
    kernel, delta = rng.normal(size=(3, 3, 3, 4, 4)), rng.normal(size=(3, 4))
    got = project_conv(kernel, delta, 0.1, 0.2)
    for k in range(3):
        expected = algorithm_2(kernel[k], delta[k], 0.1, 0.2)
        np.testing.assert_allclose(got[0][k], expected[0], rtol=1e-12)
        np.testing.assert_allclose(got[1][k], expected[1], rtol=1e-12)


def test_delta_may_come_in_another_precision():
    # NumPy's default is float64, and the kernel of a layer is float32.
    kernel, delta = project_conv(np.ones((3, 3, 2, 2), np.float32), np.zeros(2), 0.01, 0.05)
    assert kernel.dtype == delta.dtype == "float32"


def test_zeros_stay_finite():
    np.testing.assert_array_equal(project_dense(np.zeros((2, 3)), 0.1), np.zeros((2, 3)))
    kernel, _ = project_conv(np.zeros((3, 3, 2, 2)), np.zeros(2), 0.1, 0.2)
    expected = np.zeros((3, 3, 2, 2))
    expected[1, 1] = -np.eye(2)
    np.testing.assert_array_equal(kernel, expected)


def test_delta_is_clipped():
    np.testing.assert_allclose(project_delta([-2.0, -0.3, 5.0], 0.1), [-0.9, -0.3, 0.9])


@pytest.mark.parametrize(
    "constraint",
    [
        projections.DenseProjection(0.1),
        projections.DenseProjection(0.1, 1.5),
        projections.DeltaProjection(0.2),
    ],
)
def test_constraints_can_be_saved(constraint):
    config = keras.constraints.serialize(constraint)
    twin = keras.constraints.deserialize(config)
    value = 5 * np.random.default_rng(0).normal(size=(3, 3))
    np.testing.assert_array_equal(twin(value), constraint(value))
    assert twin.get_config() == constraint.get_config()


def test_write_center_separates_the_gradients():
    kernel, delta = tf.ones((3, 3, 2, 2)), tf.constant([0.1, -0.2])
    with tf.GradientTape() as tape:
        tape.watch((kernel, delta))
        written = projections.write_center(kernel, delta)
        loss = tf.reduce_sum(written * tf.reshape(tf.range(36.0), (3, 3, 2, 2)))
    dkernel, ddelta = tape.gradient(loss, (kernel, delta))
    # Centres are at flat positions 16 and 19.
    expected = np.arange(36.0)
    expected[[16, 19]] = 0
    np.testing.assert_array_equal(np.ravel(dkernel), expected)
    np.testing.assert_array_equal(ddelta, [-16, -19])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shift": 0.5}, "`shift` must lie in"),
        ({"shift": 0.0}, "`shift` must lie in"),
        ({"shift": 0.1, "bound": 1.81}, "`bound` must lie in"),
        ({"shift": 0.1, "bound": 0.0}, "`bound` must lie in"),
    ],
)
def test_dense_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        project_dense(np.eye(2, dtype=np.float32), **options)


@pytest.mark.parametrize(
    ("shape", "margin", "center_margin", "said"),
    [
        ((3, 3, 2, 2), 0.9, 0.05, "`margin` must be smaller"),
        ((3, 3, 2, 2), 0.0, 0.05, "`margin` must lie in"),
        ((3, 3, 2, 2), 0.1, 1.0, "`center_margin` must lie in"),
        ((3, 2, 2, 2), 0.1, 0.2, "`kernel` must have odd sides"),
        ((3, 3, 1, 2), 0.1, 0.2, "`kernel` must have odd sides"),
    ],
)
def test_conv_bad_arguments(shape, margin, center_margin, said):
    with pytest.raises(ValueError, match=said):
        project_conv(np.zeros(shape, np.float32), np.zeros(2), margin, center_margin)
