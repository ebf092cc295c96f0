"""Cross-checks of operator norms, folded kernels, and the divisor of a cap."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv import spectral
from tests.support.operators import dense_operator, draw

EPSILON = 1e-3


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_folded_kernel_is_conv_between_both_normalisations(seed):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 2, 4))
    # Gammas of both signs.
    gamma1, gamma2 = rng.normal(size=2), rng.normal(size=4)
    variance1, variance2 = rng.uniform(0.1, 3, 2), rng.uniform(0.1, 3, 4)
    s1, s2 = gamma1 / np.sqrt(variance1 + EPSILON), gamma2 / np.sqrt(variance2 + EPSILON)
    pixels = 5 * 4
    matrix = dense_operator(kernel, (5, 4))
    matrix = np.diag(np.tile(s2, pixels)) @ matrix @ np.diag(np.tile(s1, pixels))
    folded = spectral.fold_scales(tf.constant(kernel), tf.constant(s1), tf.constant(s2))
    np.testing.assert_allclose(dense_operator(folded.numpy(), (5, 4)), matrix, atol=1e-12)
    got = spectral.conv_operator_norm(folded, (5, 4))
    assert float(got) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-3)


def test_folding_is_exact_with_means_and_shifts_too():
    # By Keras's own layers: the difference of two outputs is linear in that of the inputs.
    norm1, norm2 = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
    conv = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)
    net = keras.Sequential([keras.Input((5, 4, 2)), norm1, conv, norm2])
    rng = np.random.default_rng(0)
    for norm in (norm1, norm2):
        for weight in norm.weights:
            weight.assign(rng.uniform(0.3, 2, weight.shape))
    scales = [
        norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        for norm in (norm1, norm2)
    ]
    matrix = dense_operator(np.asarray(spectral.fold_scales(conv.kernel.numpy(), *scales)), (5, 4))
    a, b = draw(3, 5, 4, 2, dtype=np.float32), draw(3, 5, 4, 2, seed=1, dtype=np.float32)
    difference = np.reshape(net(a) - net(b), (3, -1))
    np.testing.assert_allclose(difference, (a - b).reshape(3, -1) @ matrix.T, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_reshaped_bound_is_a_bound_at_stride_1(seed, padding):
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 5, 2), *rng.integers(1, 5, 2))
    # Smooth kernels come closest to it.
    kernel = rng.uniform(0, 1, shape)
    exact = np.linalg.norm(dense_operator(kernel, (6, 5), (1, 1), padding), 2)
    bound = float(spectral.reshaped_norm_bound(kernel))
    assert exact <= bound * (1 + 1e-12)
    matrix = kernel.reshape(-1, shape[-1])
    assert bound == pytest.approx(np.sqrt(shape[0] * shape[1]) * np.linalg.norm(matrix, 2))


def test_the_reshaped_bound_is_exact_where_taps_are_one_pixel_or_all_equal_on_a_torus():
    kernel = draw(1, 1, 4, 3)
    exact = np.linalg.norm(dense_operator(kernel, (6, 5)), 2)
    assert float(spectral.reshaped_norm_bound(kernel)) == pytest.approx(exact)
    kernel = np.ones((3, 3, 1, 1))
    exact = np.linalg.norm(dense_operator(kernel, (6, 5), circular=True), 2)
    assert float(spectral.reshaped_norm_bound(kernel)) == pytest.approx(exact)


@pytest.mark.usefixtures("untraced")
def test_without_its_factor_the_reshaped_norm_is_no_bound():
    kernel = draw(3, 3, 2, 2) * 0.1 + 0.2
    reshaped = np.linalg.norm(kernel.reshape(-1, 2), 2)
    exact = float(spectral.conv_operator_norm(kernel, (16, 16)))
    assert exact == pytest.approx(np.linalg.norm(dense_operator(kernel, (16, 16)), 2), rel=1e-3)
    assert reshaped < 0.7 * exact
    assert float(spectral.reshaped_norm_bound(kernel)) > exact


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((3, 3, 2, 3), (6, 5)),
        ((2, 4, 3, 1), (4, 7)),
        ((5, 5, 1, 2), (5, 5)),
        ((1, 1, 2, 2), (1, 3)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_circular_norm_is_that_of_the_dense_circulant_operator(shape, image, dtype):
    kernel = draw(*shape, dtype=dtype)
    exact = np.linalg.norm(dense_operator(kernel, image, circular=True), 2)
    got = spectral.circular_conv_norm(kernel, image)
    assert got.dtype == dtype
    assert float(got) == pytest.approx(exact, rel=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(
    ("bound", "cap", "divisor", "capped"),
    [(2.0, 0.95, 2 / 0.95, 0.95), (0.5, 0.95, 1.0, 0.5), (0.95, 0.95, 1.0, 0.95), (0.0, 1, 1, 0)],
)
def test_the_divisor_brings_a_bound_under_the_cap_and_leaves_small_ones(
    bound, cap, divisor, capped
):
    got = float(spectral.cap_divisor(tf.constant(bound), cap))
    assert got == pytest.approx(divisor)
    assert bound / got == pytest.approx(capped)
