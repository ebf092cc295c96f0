"""The convolutional nets, layer by layer in NumPy."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki


def convolve(x, kernel, stride=1, bias=0.0):
    """Convolve with TensorFlow's "same" padding: what is odd goes below and to the right."""
    size = kernel.shape[0]
    out = [-(-n // stride) for n in x.shape[1:3]]
    total = [max((o - 1) * stride + size - n, 0) for o, n in zip(out, x.shape[1:3], strict=True)]
    x = np.pad(x, [(0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)])
    y = np.zeros((len(x), *out, kernel.shape[-1]))
    for i, j in np.ndindex(*out):
        window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        y[:, i, j] = np.tensordot(window, kernel, axes=3)
    return y + bias


def normalise(x, layer):
    gamma, beta, mean, variance = (w.numpy().astype(np.float64) for w in layer.weights)
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def forward(model, x, block, filters, blocks):
    """Run a staged net in float64, given what a block does to a state."""
    get = model.get_layer
    for stage in range(1, len(filters) + 1):
        (kernel,) = get(f"transition{stage}").get_weights()
        x = convolve(x, kernel.astype(np.float64), stride=1 if stage == 1 else 2)
        x = normalise(x, get(f"transition{stage}_norm"))
        for b in range(1, blocks + 1):
            x = block(model, f"stage{stage}_block{b}", x)
    x = normalise(x, get("head_norm")).mean(axis=(1, 2))
    kernel, bias = (w.astype(np.float64) for w in get("logits").get_weights())
    return x @ kernel + bias


def plain_block(model, name, x):
    kernel, bias = model.get_layer(f"{name}_conv").get_weights()
    return x + np.maximum(convolve(x, kernel.astype(np.float64), bias=bias), 0)


def normalised_block(model, name, x):
    (kernel,) = model.get_layer(f"{name}_conv").get_weights()
    y = convolve(x, kernel.astype(np.float64))
    return x + np.maximum(normalise(y, model.get_layer(f"{name}_norm")), 0)


def nais_block(model, name, u):
    layer, x = model.get_layer(name), u
    C, D, E, delta = (
        w.numpy().astype(np.float64) for w in (layer.C, layer.D, layer.E, layer.delta)
    )
    for c in range(layer.filters):
        C[1, 1, c, c] = -1 - delta[c]
    for _ in range(layer.max_unroll):
        x = x + np.maximum(convolve(x, C) + convolve(u, D, bias=E), 0)
    return x


@pytest.mark.parametrize(
    ("name", "block", "settings"),
    [
        ("nais1", nais_block, {}),
        ("nais10", nais_block, {"max_unroll": 4}),
        ("resnet54", normalised_block, {}),
        ("resnet54_plain", plain_block, {}),
        ("resnet54_wide", normalised_block, {}),
    ],
)
@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_logits_are_those_of_a_numpy_net(name, block, settings, size):
    model = ki.create_model(name, (*size, 2), 3, filters=(3, 4, 5), blocks=2, **settings)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        # Statistics, scales, and biases as after some training; projections as after a step.
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 2, weight.shape))
            elif weight.name in ("beta", "moving_mean", "bias", "E", "delta"):
                weight.assign(rng.uniform(-0.5, 0.5, weight.shape))
            if weight.constraint is not None:
                weight.assign(weight.constraint(weight))
    x = rng.normal(size=(3, *size, 2)).astype(np.float32)
    expected = forward(model, x.astype(np.float64), block, (3, 4, 5), 2)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(model(x), expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["nais1", "nais10", "resnet54_plain"])
def test_states_stay_in_bounds_along_the_chain_of_54(name):
    # At the start of training, in evaluation: the moving statistics are not set yet.
    model = ki.create_model(name, (8, 8, 3), 10)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    assert 1e-3 < np.abs(model(x)).max() < 1e3


def test_states_of_normalised_blocks_stay_in_bounds_by_the_batch():
    model = ki.create_model("resnet54", (8, 8, 3), 10)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    ends = keras.Model(model.input, [model.get_layer("stage1_block18").output, model.output])
    for value in ends(x, training=True):
        assert 1e-3 < np.abs(value).max() < 1e2
