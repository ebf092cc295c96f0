"""States and readouts of small nets by depth, against NumPy and the nets themselves."""

import types

import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.datasets import Split
from keras_iterconv.tasks import TASKS
from training.reproduce.readouts import as_json, read_out, states_at, states_by_depth

SHAPE, UNITS, UPDATES = (4, 4, 1), 5, 4
ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}


def make_net(name, activation="tanh"):
    model = ki.create_model(name, SHAPE, 3, units=UNITS, max_unroll=UPDATES, activation=activation)
    rng = np.random.default_rng(1)
    # Batch normalisation starts as the identity: numbers of its own would be seen.
    model.set_weights([w + 0.1 * np.abs(rng.normal(size=w.shape)) for w in model.get_weights()])
    return model


def numpy_states(model, images, activation):
    """The states by the equations of the paper, in float64."""
    flat = images.reshape(len(images), -1).astype(float)
    sigma, w = ACTIVATIONS[activation], {v.path: v.numpy().astype(float) for v in model.weights}
    if "block/R" in w:
        A = -w["block/R"].T @ w["block/R"] - 0.01 * np.eye(UNITS)
        steps = [(A, flat @ w["block/B"] + w["block/b"])] * UPDATES
        h, states = 0.1, [np.zeros((len(images), UNITS))]
    elif "A/kernel" in w:
        steps = [(w["A/kernel"], flat @ w["B/kernel"] + w["A/bias"])] * UPDATES
        h, states = 1.0, [np.zeros((len(images), UNITS))]
    else:
        steps = [(w[f"A{k}/kernel"], w[f"A{k}/bias"]) for k in range(1, UPDATES + 1)]
        h, states = 1.0, [flat @ w["embedding/kernel"] + w["embedding/bias"]]
    for A, drive in steps:
        states.append(states[-1] + h * sigma(states[-1] @ A + drive))
    return np.stack(states)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, *SHAPE)).astype("float32")


@pytest.mark.parametrize(
    ("name", "activation"),
    [("nais_dense", "tanh"), ("nais_dense", "relu"), ("resnet_sh_na", "tanh"), ("resnet", "relu")],
)
def test_the_states_are_those_of_the_equations(name, activation, images):
    model = make_net(name, activation)
    expected = numpy_states(model, images, activation)
    found = states_by_depth(model, images)
    assert found.shape == (UPDATES + 1, 6, UNITS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_stable_net_is_followed_beyond_its_own_depth(images):
    model = make_net("nais_dense")
    near = states_by_depth(model, images)
    found = states_at(model, images, (2, UPDATES, 5000, 5001))
    np.testing.assert_allclose(found[:2], near[[2, UPDATES]], rtol=1e-5, atol=1e-6)
    R, B, b = (weight.numpy().astype(float) for weight in model.get_layer("block").weights)
    # The steady state of Theorem 1, whose sign the paper misprints: x = -A^-1 (B u + b).
    A = -R.T @ R - 0.01 * np.eye(UNITS)
    steady = -np.linalg.solve(A, (images.reshape(6, -1) @ B + b).T).T
    assert np.abs(found[-1] - steady).max() < 0.05 * np.abs(steady).max()


@pytest.mark.parametrize("name", ["nais_dense", "resnet_bn"])
def test_the_last_readout_is_that_of_the_net(name, images):
    model = make_net(name)
    labels = np.array([0, 1, 2, 0, 1, 2])
    pixels = (images * 255).astype("uint8")
    data = types.SimpleNamespace(
        test=Split(pixels, labels),
        mean=np.zeros(1, "float32"),
        std=np.full(1, 255, "float32"),
        task=TASKS["classes"],
    )
    losses, accuracies = read_out(model, data)
    logits = model(pixels.astype("float32") / 255).numpy().astype(float)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert len(losses) == len(accuracies) == UPDATES + 1
    assert losses[-1] == pytest.approx(-np.log(chances[range(6), labels]).mean(), rel=1e-4)
    assert accuracies[-1] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    if name == "nais_dense":
        # The state starts at zero: all images have the logits of the bias.
        bias = model.get_layer("logits").bias.numpy().astype(float)
        first = np.log(np.exp(bias).sum()) - bias[labels].mean()
        assert losses[0] == pytest.approx(first, rel=1e-4)


def test_numbers_that_json_cannot_represent_are_none():
    assert as_json(np.array([[1.0, np.nan], [np.inf, -2.5]])) == [[1.0, None], [None, -2.5]]
    assert as_json(np.float32(0.1)) == pytest.approx(0.1)
