"""NAIS-Net's ResNets for MNIST, against a NumPy loop."""

import itertools
import re

import keras
import numpy as np
import pytest

import keras_iterconv as ki


@pytest.mark.parametrize("parts", [*itertools.product(("", "_sh"), ("", "_na"), ("", "_bn"))])
def test_logits_are_those_of_a_numpy_loop(parts):
    name = "resnet" + "".join(parts)
    model = ki.create_model(
        name, (3, 2, 2), 3, units=5, max_unroll=4, step_size=0.7, activation="tanh"
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape))
        if weight.name == "moving_variance":
            weight.assign(np.abs(weight.numpy()))
    values = {w.path: w.numpy().astype(np.float64) for w in model.weights}
    x = rng.normal(size=(6, 3, 2, 2)).astype(np.float32)
    u = x.reshape(6, -1).astype(np.float64)

    shared, driven, normalised = (bool(part) for part in parts)
    if driven:
        state = np.zeros((6, 5))
    else:
        state = u @ values.pop("embedding/kernel") + values.pop("embedding/bias")
    for k in range(1, 5):
        suffix = "" if shared else k
        pre = state @ values[f"A{suffix}/kernel"] + values[f"A{suffix}/bias"]
        if driven:
            pre = pre + u @ values[f"B{suffix}/kernel"]
        if normalised:
            gamma, beta, mean, variance = (
                values.pop(f"norm{k}/{w}")
                for w in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            pre = gamma * (pre - mean) / np.sqrt(variance + 1e-3) + beta
        state = state + 0.7 * np.tanh(pre)
    expected = state @ values.pop("logits/kernel") + values.pop("logits/bias")
    np.testing.assert_allclose(model(x), expected, atol=2e-5)

    # Nothing else has weights.
    names = [""] if shared else range(1, 5)
    left = {f"A{s}/{w}" for s in names for w in ("kernel", "bias")}
    left |= {f"B{s}/kernel" for s in names if driven}
    assert set(values) == left


VARIANTS = [name for name in ki.list_models() if re.fullmatch(r"resnet(_(sh|na|bn|stable))*", name)]


def test_the_paper_has_nine_variants():
    assert len(VARIANTS) == 9


@pytest.mark.parametrize("name", VARIANTS)
def test_the_step_of_a_resnet_is_one(name):
    # Eq. 3 with h = 1; the 0.1 of `nais_dense` is that net's own.
    model = ki.create_model(name, (8, 8, 1), 10, units=6)
    assert {block.step_size for block in ki.iterated_blocks(model)} == {1.0}
    (block,) = ki.iterated_blocks(ki.create_model("nais_dense", (8, 8, 1), 10, units=6))
    assert block.step_size == 0.1


@pytest.mark.parametrize("name", VARIANTS)
def test_states_stay_in_bounds_at_step_one(name):
    model = ki.create_model(name, (16, 16, 1), 10)
    x = np.random.default_rng(0).uniform(size=(64, 16, 16, 1)).astype(np.float32)
    last = keras.Model(model.input, model.get_layer("logits").input)
    # By the batch's statistics, as the training starts.
    size = np.linalg.norm(last(x, training=True), axis=1).mean()
    unit = np.linalg.norm(x.reshape(64, -1), axis=1).mean()
    if "_na" not in name:
        embedding = model.get_layer("embedding")
        unit = np.linalg.norm(x.reshape(64, -1) @ embedding.kernel + embedding.bias, axis=1).mean()
    # Each of the 128 normalised transfers is about 1 / 30 at each of 30 updates.
    most = 2 * np.e * unit + ("_bn" in name) * np.sqrt(128)
    assert 0.1 * unit < size < most


def test_stable_variant_is_an_autonomous_contraction():
    model = ki.create_model("resnet_sh_stable", (3, 2, 2), 3, units=5, max_unroll=4)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3, 2, 2)).astype(np.float32)
    embedding, block, logits = (model.get_layer(n) for n in ("embedding", "block", "logits"))
    kernel, bias = embedding.get_weights()
    state = x.reshape(6, -1).astype(np.float64) @ kernel + bias
    R, b = block.get_weights()
    A = -R.T.astype(np.float64) @ R - 0.01 * np.eye(5)
    for _ in range(4):
        state = state + np.maximum(state @ A + b, 0)
    kernel, bias = logits.get_weights()
    np.testing.assert_allclose(model(x), state @ kernel + bias, atol=1e-5)
