"""Tied residual stages with weights of their own, and inputs of several scales."""

import numpy as np

import keras_iterconv as ki

IMAGE, FILTERS, EPSILON = (5, 4), 3, 1e-3
CAPPED = {"skip_from": "stage_input", "lipschitz_cap": 0.95}
SMALLEST, LARGEST = 1e-2, 3.0


def make_stage(blocks=4, seed=0, tied=True, **settings):
    """Return a stage with statistics, scales and shifts as after some training."""
    stage = ki.ResidualStage(FILTERS, blocks, tied=tied, **settings)
    stage.build((None, *IMAGE, FILTERS))
    rng = np.random.default_rng(seed)
    for name, low, high in (("gamma", 0.5, 2), ("beta", -1, 1), ("mean", -1, 1),
                            ("variance", 0.5, 2)):  # fmt: skip
        for number in "12":
            variable = getattr(stage, name + number)
            variable.assign(rng.uniform(low, high, variable.shape))
    for kernel in (stage.kernel1, stage.kernel2):
        kernel.assign(rng.normal(size=kernel.shape) * 0.3)
    stage.converge_cap()
    return stage


def make_slow_stage(cap=0.95, blocks=1000, **settings):
    """Return a stage with f(z) = cap z for z >= 0: no capped f contracts more slowly."""
    stage = ki.ResidualStage(
        FILTERS, blocks, "stage_input", lipschitz_cap=cap, tied=True, **settings
    )
    stage.build((None, *IMAGE, FILTERS))
    delta = np.zeros((3, 3, FILTERS, FILTERS))
    delta[1, 1] = np.eye(FILTERS)
    stage.kernel1.assign(delta)
    stage.kernel2.assign(2 * delta)
    stage.converge_cap()
    return stage


def untied_copy(stage, blocks=None):
    """Return an untied stage of which each block has the weights of a tied one."""
    blocks = stage.blocks if blocks is None else blocks
    copy = ki.ResidualStage(FILTERS, blocks, stage.skip_from, lipschitz_cap=stage.lipschitz_cap,
                            dtype=stage.dtype_policy)  # fmt: skip
    copy.build((None, *IMAGE, FILTERS))
    for mine, theirs in zip(copy.weights, stage.weights, strict=True):
        mine.assign(np.stack([theirs.numpy()] * blocks))
    return copy


def images(samples=6, seed=1, dtype=np.float32):
    """Return samples of several scales, so that depths differ."""
    x = np.random.default_rng(seed).normal(size=(samples, *IMAGE, FILTERS))
    scales = np.geomspace(SMALLEST, LARGEST, samples)[:, None, None, None]
    return (x * scales).astype(dtype)
