"""Operator norms of convolutions against dense matrices and SciPy, and the cap's divisor."""

import keras
import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv import spectral
from tests.support.operators import dense_operator, draw

EPSILON = 1e-3


def largest_singular_value(matrix):
    if min(matrix.shape) < 3:
        return np.linalg.svd(matrix, compute_uv=False)[0]
    start = np.random.default_rng(9).normal(size=min(matrix.shape))
    sparse = scipy.sparse.csr_array(matrix)
    return scipy.sparse.linalg.svds(sparse, k=1, v0=start, return_singular_vectors=False)[0]


# Kernel [kh, kw, channels, filters], image, strides, padding.
SHAPES = [
    ((3, 3, 4, 4), (8, 8), 1, "same"),
    ((3, 3, 4, 4), (8, 8), 1, "valid"),
    ((3, 3, 2, 5), (7, 5), 1, "same"),
    ((3, 3, 5, 2), (5, 9), 2, "same"),
    ((3, 3, 3, 6), (8, 6), 2, "valid"),
    ((3, 3, 3, 3), (6, 7), (2, 1), "same"),
    ((3, 3, 3, 3), (6, 7), (1, 2), "valid"),
    ((2, 2, 3, 2), (6, 5), 1, "same"),
    ((2, 2, 3, 2), (5, 6), 2, "same"),
    ((4, 2, 2, 3), (7, 6), 1, "valid"),
    ((4, 3, 2, 3), (7, 6), (2, 1), "same"),
    ((5, 5, 1, 1), (9, 8), 1, "same"),
    ((5, 5, 2, 2), (3, 4), 1, "same"),
    ((7, 5, 2, 3), (2, 3), 2, "same"),
    ((1, 1, 4, 6), (3, 4), 1, "same"),
    ((1, 1, 6, 4), (5, 4), 2, "valid"),
    ((1, 5, 1, 3), (4, 9), 1, "same"),
    ((3, 3, 1, 1), (1, 1), 1, "same"),
    ((3, 3, 4, 1), (3, 3), 1, "valid"),
    ((2, 3, 1, 2), (1, 7), (1, 2), "same"),
]


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(("shape", "image", "strides", "padding"), SHAPES)
def test_the_norm_is_that_of_the_explicit_operator(shape, image, strides, padding):
    kernel = draw(*shape, seed=sum(shape) + sum(image)).astype(np.float32)
    pair = (strides, strides) if isinstance(strides, int) else strides
    expected = largest_singular_value(dense_operator(kernel, image, pair, padding))
    got = spectral.conv_operator_norm(kernel, image, strides, padding)
    assert got.dtype == tf.float32
    assert got.shape == ()
    assert float(got) == pytest.approx(expected, rel=1e-3)
    # From below, up to rounding.
    assert float(got) < expected * (1 + 1e-5)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("which", [2, 5, 8])
def test_float64_converges_as_far_as_asked(which):
    shape, image, strides, padding = SHAPES[which]
    pair = (strides, strides) if isinstance(strides, int) else strides
    kernel = draw(*shape)
    expected = np.linalg.norm(dense_operator(kernel, image, pair, padding), 2)
    got = spectral.conv_operator_norm(kernel, image, strides, padding, tolerance=1e-10)
    assert got.dtype == tf.float64
    assert float(got) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("untraced")
def test_neighbouring_singular_values_do_not_stop_it_early():
    # A blur of a large image: its singular values lie close together at the top.
    kernel = np.full((3, 3, 1, 1), 1 / 9, np.float32)
    # Separable: the operator is a Kronecker product of two tridiagonal matrices of ones.
    expected = (1 + 2 * np.cos(np.pi / 31)) ** 2 / 9
    assert float(spectral.conv_operator_norm(kernel, (30, 30))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.usefixtures("untraced")
def test_an_estimate_may_be_another_singular_vector():
    kernel = np.zeros((3, 3, 2, 2), np.float32)
    kernel[1, 1] = np.diag([3.0, 1.0])
    operator = spectral.ConvOperator(tf.constant(kernel), (4, 5, 2))
    second = np.zeros((1, 4, 5, 2), np.float32)
    second[..., 1] = 1 / np.sqrt(20)
    for tolerance in (1e-2, 1e-4):
        norm, vector = spectral.converged_norm(operator, tolerance=tolerance, estimate=second)
        assert float(norm) == pytest.approx(3, rel=tolerance)
        assert np.abs(vector[..., 1]).max() < 0.1


def test_few_steps_approach_from_below():
    kernel = draw(3, 3, 4, 4)
    norm = np.linalg.norm(dense_operator(kernel, (12, 12)), 2)
    few = float(spectral.conv_operator_norm(kernel, (12, 12), iterations=1))
    assert 0.5 * norm < few < norm


@pytest.mark.parametrize("image", [(5, 4), [5, 4], (5, 4, 2)])
@pytest.mark.parametrize("kind", ["array", "tensor", "variable", "keras"])
def test_kernels_and_images_may_come_in_many_forms(image, kind):
    kernel = draw(3, 3, 2, 3, dtype=np.float32)
    make = {"array": np.array, "tensor": tf.constant, "variable": tf.Variable,
            "keras": keras.Variable}[kind]  # fmt: skip
    expected = largest_singular_value(dense_operator(kernel, (5, 4)))
    assert float(spectral.conv_operator_norm(make(kernel), image)) == pytest.approx(expected, 1e-3)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_kernels_are_measured_in_float32(dtype):
    kernel = tf.cast(draw(3, 3, 2, 3), dtype)
    got = spectral.conv_operator_norm(kernel, (5, 4))
    assert got.dtype == tf.float32
    expected = largest_singular_value(dense_operator(tf.cast(kernel, "float64").numpy(), (5, 4)))
    assert float(got) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "scale", [1e-25, 1e-9, 1e-4, 1e4, pytest.param(1e12, id="1e12: squares overflow float32"), 1e25]
)
def test_the_norm_grows_with_the_kernel(scale):
    kernel = draw(3, 3, 2, 3)
    expected = largest_singular_value(dense_operator(kernel, (5, 4)))
    got = spectral.conv_operator_norm((scale * kernel).astype(np.float32), (5, 4))
    assert float(got) / scale == pytest.approx(expected, rel=1e-3)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("which", [2, 3, 10])
def test_the_gradient_is_that_of_finite_differences(which):
    shape, image, strides, padding = SHAPES[which]
    kernel, direction = draw(*shape), draw(*shape, seed=1)
    options = {"strides": strides, "padding": padding, "tolerance": 1e-11}
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        norm = spectral.conv_operator_norm(variable, image, **options)
    slope = np.sum(tape.gradient(norm, variable).numpy() * direction)
    pair = (strides, strides) if isinstance(strides, int) else strides
    h = 1e-5
    above, below = (
        np.linalg.norm(dense_operator(kernel + s * h * direction, image, pair, padding), 2)
        for s in (1, -1)
    )
    assert slope == pytest.approx((above - below) / (2 * h), rel=1e-5)


def test_the_norm_works_inside_a_traced_function():
    kernel = tf.Variable(draw(3, 3, 2, 3))

    @tf.function
    def value_and_slope():
        with tf.GradientTape() as tape:
            norm = spectral.conv_operator_norm(kernel, (5, 4))
        return norm, tape.gradient(norm, kernel)

    norm, slope = value_and_slope()
    expected = np.linalg.norm(dense_operator(kernel.numpy(), (5, 4)), 2)
    assert float(norm) == pytest.approx(expected, rel=1e-3)
    # Euler: the norm is homogeneous.
    assert np.sum(slope * kernel) == pytest.approx(expected, rel=1e-3)


@pytest.mark.usefixtures("untraced")
def test_a_kernel_of_zeros_has_norm_zero_and_a_finite_gradient():
    kernel = tf.Variable(tf.zeros((3, 3, 2, 2)))
    with tf.GradientTape() as tape:
        norm = spectral.conv_operator_norm(kernel, (4, 4))
    assert float(norm) == 0
    assert np.isfinite(tape.gradient(norm, kernel)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_ends_and_says_so(value):
    kernel = draw(3, 3, 2, 2, dtype=np.float32)
    kernel[1, 1, 0, 0] = value
    assert not np.isfinite(float(spectral.conv_operator_norm(kernel, (4, 4))))


def test_a_diverged_stage_can_still_converge_its_cap():
    stage = ki.ResidualStage(2, 2, lipschitz_cap=0.9)
    stage.build((None, 4, 3, 2))
    stage.kernel1.assign(np.nan * stage.kernel1.numpy())
    stage.converge_cap()
    assert np.isnan(stage(np.ones((1, 4, 3, 2), np.float32))).all()


@pytest.mark.parametrize("which", [0, 3, 4, 5, 8, 10, 13])
def test_apply_and_adjoint_are_the_operator_and_its_transpose(which):
    shape, image, strides, padding = SHAPES[which]
    pair = (strides, strides) if isinstance(strides, int) else strides
    kernel = draw(*shape)
    operator = spectral.ConvOperator(tf.constant(kernel), (*image, shape[2]), pair, padding)
    matrix = dense_operator(kernel, image, pair, padding)
    v = draw(2, *image, shape[2], seed=1)
    image_out = operator.apply(v)
    np.testing.assert_allclose(
        np.reshape(image_out, (2, -1)), v.reshape(2, -1) @ matrix.T, atol=1e-10
    )
    w = tf.constant(draw(*image_out.shape, seed=2))
    back = operator.adjoint(w)
    np.testing.assert_allclose(
        np.reshape(back, (2, -1)), np.reshape(w, (2, -1)) @ matrix, atol=1e-10
    )


def test_a_power_step_is_that_of_the_matrix():
    kernel = draw(3, 3, 2, 3)
    operator = spectral.ConvOperator(tf.constant(kernel), (5, 4, 2))
    matrix = dense_operator(kernel, (5, 4))
    v = draw(40, seed=1)
    v /= np.linalg.norm(v)
    vector = tf.constant(v.reshape(1, 5, 4, 2))
    last = 0.0
    for _ in range(30):
        norm, vector = spectral.power_step(operator, vector)
        assert float(norm) == pytest.approx(np.linalg.norm(matrix @ v), rel=1e-10)
        assert last <= float(norm) <= np.linalg.norm(matrix, 2) * (1 + 1e-12)
        last = float(norm)
        v = matrix.T @ (matrix @ v)
        v /= np.linalg.norm(v)
        np.testing.assert_allclose(np.ravel(vector), v, atol=1e-10)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_power_step_keeps_its_vector_where_the_kernel_says_nothing(value):
    operator = spectral.ConvOperator(tf.fill((3, 3, 2, 3), tf.constant(value)), (5, 4, 2))
    vector = spectral.start_vectors(1, (5, 4, 2))
    norm, following = spectral.power_step(operator, vector)
    np.testing.assert_array_equal(norm, np.float32(value))
    np.testing.assert_array_equal(following, vector)


def test_a_power_step_s_gradient_holds_both_vectors_constant():
    kernel = tf.Variable(draw(3, 3, 2, 3))
    v = draw(40, seed=1)
    v /= np.linalg.norm(v)
    with tf.GradientTape() as tape:
        operator = spectral.ConvOperator(tf.convert_to_tensor(kernel), (5, 4, 2))
        start = tf.Variable(v.reshape(1, 5, 4, 2))
        norm, following = spectral.power_step(operator, start)
        loss = norm + tf.reduce_sum(following * draw(5, 4, 2, seed=4))
    slope, of_start = tape.gradient(loss, [kernel, start])
    assert of_start is None
    slope = slope.numpy()
    image = dense_operator(kernel.numpy(), (5, 4)) @ v
    u = image / np.linalg.norm(image)
    direction = draw(3, 3, 2, 3, seed=3)
    expected = u @ dense_operator(direction, (5, 4)) @ v
    assert np.sum(slope * direction) == pytest.approx(expected, rel=1e-10)


@pytest.mark.usefixtures("untraced")
def test_one_step_on_a_kernel_of_zeros_does_not_lose_the_vector():
    stage = ki.ResidualStage(2, 1, lipschitz_cap=0.5)
    stage.build((None, 5, 4, 2))
    stage.kernel2.assign(tf.zeros_like(stage.kernel2))
    stage(draw(3, 5, 4, 2, dtype=np.float32), training=True)
    kernel2 = 5 * draw(1, 3, 3, 2, 2, seed=1)
    stage.kernel2.assign(kernel2)
    stage.converge_cap()
    s1, s2 = (
        stage_gamma.numpy()[0] / np.sqrt(variance.numpy()[0] + EPSILON)
        for stage_gamma, variance in (
            (stage.gamma1, stage.variance1),
            (stage.gamma2, stage.variance2),
        )
    )
    bound = np.linalg.norm(dense_operator(kernel2[0], (5, 4)), 2)
    bound *= np.linalg.norm(dense_operator(s2 * stage.kernel1.numpy()[0] * s1[:, None], (5, 4)), 2)
    assert float(stage.divisor[0]) == pytest.approx(bound / 0.5, rel=1e-3)


def test_start_vectors_repeat_and_are_of_norm_one():
    one, other = (np.asarray(spectral.start_vectors(3, (5, 4, 2), "float64")) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    gram = one.reshape(3, -1) @ one.reshape(3, -1).T
    np.testing.assert_allclose(np.diag(gram), 1)
    # Three draws, not one.
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 0.9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel": np.ones((3, 3, 2))}, r"`kernel` must have the shape.*shape \(3, 3, 2\)"),
        ({"image_shape": (5,)}, r"`image_shape` must be \(height, width\).*\(5,\)"),
        ({"image_shape": 5}, "`image_shape` must be .*image_shape=5"),
        ({"image_shape": (5, 5, 3)}, r"`image_shape` must be .*width, 2\).*\(5, 5, 3\)"),
        ({"image_shape": (5, 0)}, "`image_shape` must be an integer of at least 1"),
        ({"image_shape": (5.0, 5)}, "`image_shape` must be an integer of at least 1"),
        ({"strides": 0}, "`strides` must be an integer of at least 1. Received: strides=0"),
        ({"strides": (1, 2, 1)}, r"`strides` must be one number or two.*\(1, 2, 1\)"),
        ({"strides": 1.5}, "`strides` must be an integer of at least 1"),
        ({"padding": "SAME"}, "`padding` must be one of.*'SAME'"),
        ({"padding": "circular"}, "`padding` must be one of"),
        ({"iterations": 0}, "`iterations` must be an integer of at least 1"),
        ({"tolerance": 0}, r"`tolerance` must lie in \(0, 1\).*tolerance=0"),
        ({"tolerance": float("nan")}, "`tolerance` must lie in"),
        ({"padding": "valid", "image_shape": (2, 5)}, "at least as large as the kernel.*2, 5"),
    ],
)
def test_bad_arguments(changed, message):
    arguments = {"kernel": np.ones((3, 3, 2, 2)), "image_shape": (5, 5), **changed}
    with pytest.raises(ValueError, match=message):
        spectral.conv_operator_norm(**arguments)


@pytest.mark.parametrize(
    ("shape", "image", "message"),
    [
        ((3, 3, 2), (5, 5), "`kernel` must have the shape"),
        ((3, 3, 2, 2), (5, 5, 4), "`image_shape` must be"),
        ((3, 3, 2, 2), (2, 5), r"at least as large as the kernel.*image_shape=\(2, 5\)"),
    ],
)
def test_bad_arguments_of_the_circular_norm(shape, image, message):
    with pytest.raises(ValueError, match=message):
        spectral.circular_conv_norm(np.ones(shape), image)


def test_bad_argument_of_the_reshaped_bound():
    with pytest.raises(ValueError, match="`kernel` must have the shape"):
        spectral.reshaped_norm_bound(np.ones((3, 3)))
