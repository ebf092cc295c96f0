"""The twins of ResNets compute what our nets do."""

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import numpy as np
import pytest

from benchmarks import residual_nets
from benchmarks.described_nets import describe_net
from benchmarks.harness.bench import Bench
from benchmarks.harness.candidate import Candidate
from benchmarks.steps import TORCH

SHAPE = (9, 6, 3)


@pytest.fixture
def model():
    model = ki.create_model("resnet_w8", SHAPE, 4, blocks=2)
    rng = np.random.default_rng(3)
    for weight in model.weights:
        positive = "variance" in weight.path
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else
                      rng.normal(scale=0.3, size=weight.shape))  # fmt: skip
    return model


def test_the_stock_twin_computes_the_same(model, make_images):
    images = make_images()
    np.testing.assert_allclose(
        residual_nets.stock_twin(model)(images), model(images), rtol=1e-4, atol=1e-4
    )


@pytest.mark.pytorch
def test_the_torch_twin_computes_the_same(model, make_images):
    images = make_images()
    arguments = {"described": describe_net(model), "images": images, "labels": np.zeros(5, int)}
    with Bench("cpu") as bench:
        out = bench.ask(Candidate(TORCH, arguments), "logits", images=images)
    np.testing.assert_allclose(out, model(images), rtol=1e-4, atol=1e-4)


@pytest.fixture
def make_images():
    return lambda: np.random.default_rng(4).normal(size=(5, *SHAPE)).astype(np.float32)
