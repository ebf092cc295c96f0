"""The twins of NAIS-Nets compute, and learn, what our nets do."""

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import nais_nets
from benchmarks.described_nets import describe_net
from benchmarks.harness.bench import Bench
from benchmarks.harness.candidate import Candidate
from benchmarks.steps import TORCH, bare_steps, fit_steps

# Odd and even sides: the transitions pad them in other places.
SHAPE = (9, 6, 3)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
# Of changes by one small step, in weights of about one.
CHANGE = {"rtol": 1e-3, "atol": 1e-6}


@pytest.fixture(params=[("relu", 1.0), ("tanh", 0.5)], ids=lambda p: p[0])
def model(request):
    activation, step_size = request.param
    model = ki.create_model(
        "nais10",
        SHAPE,
        4,
        filters=(4, 6),
        blocks=2,
        max_unroll=3,
        activation=activation,
        step_size=step_size,
    )
    rng = np.random.default_rng(3)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    for block in ki.iterated_blocks(model):
        # As after an optimizer's step: delta first.
        for weight in (block.delta, block.C):
            weight.assign(weight.constraint(weight))
    return model


@pytest.fixture
def batch():
    rng = np.random.default_rng(4)
    return rng.normal(size=(5, *SHAPE)).astype(np.float32), rng.integers(4, size=5)


def values(weights):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]


@pytest.fixture
def bench():
    with Bench("cpu") as opened:
        yield opened


def torch_twin(model, batch):
    images, labels = batch
    arguments = {"described": describe_net(model), "images": images, "labels": labels}
    return Candidate(TORCH, arguments)


def test_the_stock_twin_computes_the_same(model, batch):
    twin = nais_nets.stock_twin(model)
    kinds = {type(layer).__module__.split(".")[0] for layer in twin.layers}
    assert kinds == {"keras"}
    np.testing.assert_allclose(twin(batch[0]), model(batch[0]), **TOLERANCE)


def test_the_unrolled_twin_computes_the_same(model, batch):
    twin = nais_nets.unrolled_twin(model)
    assert isinstance(twin, ki.IterativeModel)
    np.testing.assert_allclose(twin(batch[0]), model(batch[0]), **TOLERANCE)


@pytest.mark.pytorch
def test_the_torch_twin_computes_the_same(model, batch, bench):
    logits = bench.ask(torch_twin(model, batch), "logits", images=batch[0])
    np.testing.assert_allclose(logits, model(batch[0]), **TOLERANCE)


def test_a_step_moves_the_stock_twin_alike(model, batch):
    twin = nais_nets.stock_twin(model)
    kernels = [
        layer.kernel
        for layer in twin.layers
        if getattr(layer, "kernel_constraint", None) is not None
    ]
    ours = [block.C for block in ki.iterated_blocks(model)]
    before = values(ours)
    fit_steps(twin, *batch, 1)()
    fit_steps(model, *batch, 1)()
    for theirs, new, old in zip(values(kernels), values(ours), before, strict=True):
        assert np.abs(new - old).max() > 1e-4
        np.testing.assert_allclose(theirs - old, new - old, **CHANGE)
    # All other weights show here, but for the moving statistics: Keras's variance is the same.
    np.testing.assert_allclose(twin(batch[0]), model(batch[0]), **TOLERANCE)


def test_a_bare_step_moves_the_unrolled_twin_alike(model, batch):
    twin = nais_nets.unrolled_twin(model)
    before = values(model.weights)
    bare_steps(twin, *batch, 1)()
    fit_steps(model, *batch, 1)()
    for theirs, ours, old in zip(values(twin.weights), values(model.weights), before, strict=True):
        np.testing.assert_allclose(theirs - old, ours - old, **CHANGE)


@pytest.mark.pytorch
def test_a_step_moves_the_torch_twin_alike(model, batch, bench):
    twin = torch_twin(model, batch)
    before = values(model.trainable_variables)
    bench.ask(twin, "run")
    fit_steps(model, *batch, 1)()
    after = values(model.trainable_variables)
    moved = bench.ask(twin, "parameters")
    for theirs, ours, old in zip(moved, after, before, strict=True):
        np.testing.assert_allclose(theirs - old, ours - old, **CHANGE)
        assert np.abs(ours - old).max() > 1e-5


@pytest.mark.parametrize(
    "settings",
    [{"tied": False}, {"threshold": 0.1}, {"center": "fixed"}, {"initial_state": "zeros"}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_net_without_a_twin_is_refused(settings):
    model = ki.create_model("nais10", SHAPE, 4, filters=(4,), blocks=1, max_unroll=2, **settings)
    for make in (nais_nets.stock_twin, nais_nets.unrolled_twin, describe_net):
        with pytest.raises(ValueError, match="`model` must be"):
            make(model)


def test_the_constraint_is_algorithm_2_on_the_kernel_s_own_centre(excess):
    layer = ki.NAISConv2D(5)
    layer.build((None, 4, 4, 5))
    kernel = np.random.default_rng(0).normal(size=layer.C.shape).astype(np.float32)
    kernel[..., 2] *= 1e-3
    projected = nais_nets.CenteredProjection(layer.margin, layer.center_margin)(kernel)
    layer.C.assign(projected)
    assert excess(layer) < 1e-6
    # One that is inside already stays.
    again = nais_nets.CenteredProjection(layer.margin, layer.center_margin)(projected)
    np.testing.assert_allclose(again, projected, atol=1e-6)
    assert isinstance(projected, tf.Tensor)
