"""Every block of the library keeps the contract of `tests.support.check_block`."""

from functools import partial

import numpy as np
import pytest

import keras_iterconv as ki
from tests.support.check_block import CHECKS, BlockCase
from tests.support.gated_block import GatedBlock
from tests.support.separable_block import SeparableBlock

EXACT = {"unroll": 1e-10, "recompute": 1e-10}


def draw(*shape, scales=(1e-3, 1), seed=1):
    """Return samples of several scales, so that depths differ."""
    x = np.random.default_rng(seed).normal(size=shape)
    scales = np.geomspace(*scales, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (x * scales).astype(np.float32)


FEATURES, IMAGES = draw(5, 6), draw(5, 5, 4, 3)
CASES = {
    "dense": BlockCase(
        partial(ki.NAISDense, 6, max_unroll=4, step_size=0.5, activation="tanh"), FEATURES, EXACT
    ),
    "dense, untied, adaptive, rank 2": BlockCase(
        partial(
            ki.NAISDense, 6, max_unroll=5, threshold=0.02, step_size=0.5, rank=2, bound=1.5,
            initial_state="input", tied=False, gradient="recompute",
        ),
        FEATURES,
        EXACT,
    ),
    "dense, implicit": BlockCase(
        partial(
            ki.NAISDense, 6, max_unroll=150, threshold=1e-6, step_size=0.7, shift=0.3,
            activation="tanh", gradient="implicit",
        ),
        FEATURES,
        {"implicit": 1e-4},
    ),
    "conv, adaptive": BlockCase(
        partial(
            ki.NAISConv2D, 3, max_unroll=5, threshold=0.05, step_size=0.5, gradient="frozen"
        ),
        IMAGES,
        EXACT,
    ),
    "conv, untied, tanh, zeros, fixed centre": BlockCase(
        partial(
            ki.NAISConv2D, 3, max_unroll=3, activation="tanh", initial_state="zeros", tied=False,
            center="fixed", step_size=0.5,
        ),
        IMAGES,
        EXACT,
    ),
    "stage": BlockCase(partial(ki.ResidualStage, 3, blocks=2), IMAGES, EXACT, True),
    "stage, capped": BlockCase(
        partial(ki.ResidualStage, 3, blocks=2, skip_from="stage_input", lipschitz_cap=0.9),
        IMAGES,
        EXACT,
        True,
    ),
    "stage, tied, capped, adaptive": BlockCase(
        partial(
            ki.ResidualStage, 3, 60, "stage_input", lipschitz_cap=0.95, tied=True, threshold=1e-4
        ),
        IMAGES,
        EXACT,
        True,
    ),
    "stage, tied": BlockCase(partial(ki.ResidualStage, 3, 3, tied=True), IMAGES, EXACT, True),
    "update": BlockCase(partial(ki.ResidualUpdate, 0.5), [FEATURES, draw(5, 6, seed=2)]),
    "a user's, adaptive": BlockCase(
        partial(SeparableBlock, 12, threshold=0.02), IMAGES, {**EXACT, "implicit": 5e-2}
    ),
    "a user's, not an Euler step": BlockCase(
        partial(GatedBlock, 12, threshold=0.1), FEATURES, EXACT
    ),
    "a user's, untied": BlockCase(partial(SeparableBlock, 3, tied=False), IMAGES, EXACT),
}  # fmt: skip


ONLY = {
    # There for its gradient mode: its updates are those of the first case.
    "dense, implicit": ("saving", "gradients", "nan", "fit"),
    # Its depthwise kernels are transposed in each update, as docs/extending.md says.
    "a user's, untied": ("saving", "gradients", "samples"),
}
PAIRS = [(name, check) for name in CASES for check in ONLY.get(name, CHECKS)]


@pytest.mark.parametrize(("name", "check"), PAIRS)
def test_contract(name, check):
    CHECKS[check](CASES[name])
