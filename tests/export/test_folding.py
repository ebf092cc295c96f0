"""Folded nets against their originals, and the norms of what was folded."""

import functools

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.exporting.folding import fold
from keras_iterconv.layers.residual_function import ResidualFunction

EPSILON = 1e-3
FAMILIES = ["resnet_w8", "icr_w8", "pcr_w8"]


SHAPE = (6, 4, 1)


@pytest.fixture(scope="module")
def residual_net(make_model):
    """Return a function that gives a net of two blocks a stage; a cap converges slowly."""

    @functools.cache
    def make(name, **settings):
        return make_model(name, shape=SHAPE, blocks=2, **settings)

    return make


def residual_stages(model):
    return [layer for layer in model.layers if isinstance(layer, ResidualFunction)]


def assert_close(found, right):
    scale = np.abs(right).max(axis=-1, keepdims=True)
    np.testing.assert_allclose(found / scale, right / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folded_net_answers_as_before(residual_net, draw_raw, name):
    model = residual_net(name)
    weights = [w.numpy() for w in model.weights]
    images = (draw_raw(5, SHAPE) - 3) / 2
    expected = model(images, training=False).numpy()
    folded = fold(model)
    assert_close(folded(images, training=False).numpy(), expected)
    assert folded.name == model.name
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    # The original is as it was.
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, before)
    np.testing.assert_array_equal(model(images, training=False), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_left_to_normalise_or_to_cap(residual_net, name):
    model = residual_net(name)
    stages = residual_stages(fold(model))
    assert len(stages) == 3
    for stage, original in zip(stages, residual_stages(model), strict=True):
        assert stage.lipschitz_cap is None
        assert not hasattr(stage, "divisor")
        np.testing.assert_array_equal(stage.mean2, 0)
        scale = np.asarray(stage.gamma2) / np.sqrt(np.asarray(stage.variance2) + EPSILON)
        np.testing.assert_allclose(scale, 1, rtol=1e-6)
        # The first normalisation stays: a ReLU follows it.
        for part in ("gamma1", "beta1", "mean1", "variance1"):
            np.testing.assert_array_equal(getattr(stage, part), getattr(original, part))


@pytest.mark.parametrize(
    ("name", "settings", "cap"),
    [("icr_w8", {}, 0.95), ("pcr_w8", {"lipschitz_cap": 0.3}, 0.3)],
)
def test_the_folded_kernels_hold_the_cap(residual_net, conv_matrix, name, settings, cap):
    model = residual_net(name, **settings)
    original = residual_stages(model)[0]
    height, width = original.vector1.shape[1:3]
    (stage, *_) = residual_stages(fold(model))

    def norm(kernel):
        return np.linalg.norm(conv_matrix(np.asarray(kernel, np.float64), height, width), 2)

    scale1 = np.asarray(stage.gamma1[0]) / np.sqrt(np.asarray(stage.variance1[0]) + EPSILON)
    first = np.asarray(stage.kernel1[0], np.float64) * scale1[:, np.newaxis]
    bound = norm(first) * norm(stage.kernel2[0])
    assert bound <= cap * (1 + 1e-4)
    # The cap bites, and is not undercut.
    assert np.asarray(original.divisor[0]) > 1.5
    assert bound > 0.98 * cap


def test_a_half_precise_net_becomes_one_of_float32(residual_net, draw_raw):
    twin = residual_net("pcr_w8")
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ki.create_model("pcr_w8", SHAPE, 5, blocks=2)
    keras.config.set_dtype_policy("float32")
    model.set_weights(twin.get_weights())
    images = (draw_raw(4, SHAPE) - 3) / 2
    folded = fold(model)
    assert {layer.dtype_policy.name for layer in folded.layers} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
    assert_close(folded(images, training=False).numpy(), twin(images, training=False).numpy())


def test_a_compiled_net_gives_one_that_is_not():
    model = ki.create_model("icr_w8", SHAPE, 5, blocks=2)
    model.compile("sgd", "mse", coupling=0.5)
    assert not fold(model).compiled


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nais10", {"filters": (4,), "blocks": 2}),
        ("nais_adaptive", {"filters": (4,), "blocks": 1, "tied": False}),
        ("nais_mnist", {"units": 12}),
        ("resnet54", {"filters": (4,), "blocks": 2}),
        ("resnet_sh_bn", {"units": 12, "max_unroll": 3}),
    ],
)
def test_a_net_without_stages_is_copied(make_model, draw_raw, name, settings):
    model = make_model(name, **settings)
    folded = fold(model)
    for weight, twin in zip(model.weights, folded.weights, strict=True):
        assert weight is not twin
        np.testing.assert_array_equal(weight, twin)
    images = (draw_raw(4) - 3) / 2
    for key, right in ki.with_depth(model)(images).items():
        np.testing.assert_array_equal(ki.with_depth(folded)(images)[key], right)


def test_a_changed_depth_is_copied_too(make_model):
    model = make_model("nais_adaptive", filters=(4,), blocks=2)
    ki.set_depth(model, max_unroll=3, threshold=0.25)
    assert [(b.max_unroll, b.threshold) for b in ki.iterated_blocks(fold(model))] == [(3, 0.25)] * 2
    untied = make_model("nais10", filters=(4,), blocks=2, tied=False, max_unroll=5)
    ki.set_depth(untied, max_unroll=2)
    assert [b.max_unroll for b in ki.iterated_blocks(fold(untied))] == [2, 2]
