"""The whitening first layer, against the covariance of its responses."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.models.whitening import whiten_patches


def smooth_images(count=64, side=9, channels=3):
    """Return images whose neighbouring pixels and channels are correlated."""
    noise = np.random.default_rng(0).normal(size=(count, side + 1, side + 1, channels))
    smooth = noise[:, 1:, 1:] + noise[:, :-1, 1:] + noise[:, 1:, :-1]
    return (smooth + 0.5 * smooth.mean(axis=-1, keepdims=True)).astype(np.float32)


def make_layer(filters, size=2, channels=3):
    layer = keras.layers.Conv2D(filters, size, use_bias=False)
    layer.build((None, None, None, channels))
    return layer


@pytest.mark.parametrize(("size", "channels"), [(2, 3), (3, 1)])
def test_responses_are_uncorrelated_and_come_with_both_signs(size, channels):
    patch = size * size * channels
    images, layer = smooth_images(channels=channels), make_layer(2 * patch, size, channels)
    before = np.corrcoef(images.reshape(-1, images[0].size)[:, :patch].T)
    assert np.abs(before - np.eye(patch)).max() > 0.3
    whiten_patches(layer, images, epsilon=1e-7)
    responses = np.asarray(layer(images)).reshape(-1, 2 * patch).astype(np.float64)
    np.testing.assert_array_equal(responses[:, patch:], -responses[:, :patch])
    moments = responses[:, :patch].T @ responses[:, :patch] / len(responses)
    np.testing.assert_allclose(moments, np.eye(patch), atol=1e-3)


def test_directions_without_variance_do_not_explode():
    layer = make_layer(24)
    whiten_patches(layer, np.ones((4, 5, 5, 3), np.float32))
    assert np.abs(layer.kernel.numpy()).max() <= 1 / np.sqrt(5e-4)


def test_images_are_taken_in_parts(monkeypatch):
    images, whole, parts = smooth_images(50), make_layer(24), make_layer(24)
    whiten_patches(whole, images)
    monkeypatch.setattr("keras_iterconv.models.whitening._IMAGES_AT_ONCE", 7)
    whiten_patches(parts, images)
    np.testing.assert_allclose(parts.kernel.numpy(), whole.kernel.numpy(), rtol=1e-4, atol=1e-5)


def test_the_first_layer_of_the_fast_net_is_whitened_and_not_trained():
    model = ki.create_model("nais_fast", (9, 9, 3), 4, filters=(8, 8))
    layer = model.get_layer("whitening")
    assert not layer.trainable_variables
    images = smooth_images()
    ki.whiten(model, images)
    expected = make_layer(24)
    whiten_patches(expected, images)
    np.testing.assert_array_equal(layer.kernel.numpy(), expected.kernel.numpy())


@pytest.mark.parametrize(
    ("filters", "shape", "message"),
    [
        (20, (2, 5, 5, 3), "`layer` must have 24 filters"),
        (24, (2, 5, 5, 1), "`images` must have the shape"),
        (24, (0, 5, 5, 3), "`images` must have the shape"),
        (24, (5, 5, 3), "`images` must have the shape"),
    ],
)
def test_what_does_not_fit(filters, shape, message):
    with pytest.raises(ValueError, match=message):
        whiten_patches(make_layer(filters), np.zeros(shape))


def test_a_net_without_whitening_is_refused():
    model = ki.create_model("nais1", (8, 8, 1), 3, blocks=1)
    with pytest.raises(ValueError, match=r"`model` .*nais_fast"):
        ki.whiten(model, np.zeros((2, 8, 8, 1)))
