"""Small blocks, inputs for them, weights of several kinds, and replicas."""

import keras
import numpy as np
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.models.registry import FORMER_NAMES
from tests.support.numpy_double import IMAGE

CHANNELS = 6
# The nets for classes of images that differ in more than channels or updates: a small net of any
# other name is one of these. `test_registry.py` builds all of them at full size.
DISTINCT_NETS = tuple(
    name
    for name in ki.list_models()
    if name not in (*FORMER_NAMES, "deep_thinking")
    and not name.endswith(("_w16", "_w32", "_w64", "_wide", "nais10"))
)


def make_block(kind, **settings):
    """Return a small block of a kind, `"dense"` or `"conv"`."""
    settings = {"max_unroll": 5, **settings}
    layer = ki.NAISDense if kind == "dense" else ki.NAISConv2D
    return layer(CHANNELS, **settings)


def make_inputs(kind, samples=3, channels=CHANNELS, scale=1.0, seed=1):
    """Return inputs for a block of a kind, float32."""
    shape = (samples, channels) if kind == "dense" else (samples, *IMAGE, channels)
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def excess(layer):
    """Return by how much a block's weights pass their bound, in float64.

    The bound of Algorithm 1 is relative, so that both kinds are around 1.
    """
    stacks = 1 if layer.tied else layer.max_unroll
    worst = -np.inf
    for k in range(stacks):
        if isinstance(layer, ki.NAISDense):
            R = np.asarray(layer.R.numpy() if layer.tied else layer.R.numpy()[k], np.float64)
            bound = 1 - 2 * layer.shift if layer.bound is None else layer.bound
            worst = max(worst, np.linalg.norm(R.T @ R) / bound - 1)
            continue
        C = np.asarray(layer.C.numpy() if layer.tied else layer.C.numpy()[k], np.float64)
        middle = layer.kernel_size // 2
        for c in range(layer.filters):
            delta = -1 - C[middle, middle, c, c]
            others = np.abs(C[..., c]).sum() - abs(1 + delta)
            worst = max(worst, others + abs(delta) - (1 - layer.margin))
            worst = max(worst, abs(delta) - (1 - layer.center_margin))
    return worst


def set_weights(layer, inputs, how, seed=2):
    """Bring a block's weights into one of the states they may be in, and return the block.

    `"initial"`; `"random"`: drawn, then projected; `"thrown"`: one optimizer step of a huge rate;
    `"trained"`: fifteen steps towards random targets. Biases and delta are not zero but for the
    first.
    """
    if not layer.built:
        layer.build(inputs.shape)
    rng = np.random.default_rng(seed)
    weights = layer.trainable_variables
    if how == "random":
        for weight in weights:
            weight.assign(rng.normal(size=weight.shape))
            if weight.constraint is not None:
                weight.assign(weight.constraint(weight))
    elif how == "thrown":
        gradients = [tf.constant(rng.normal(size=w.shape), w.dtype) for w in weights]
        keras.optimizers.SGD(1e6).apply(gradients, weights)
    elif how == "trained":
        targets = rng.normal(size=inputs.shape).astype(inputs.dtype)
        optimizer = keras.optimizers.Adam(0.1)
        for _ in range(15):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(layer(inputs) - targets))
            optimizer.apply(tape.gradient(loss, weights), weights)
    elif how != "initial":
        raise ValueError(how)
    return layer


def two_replicas():
    """Return a strategy of two replicas on one CPU, which reduces without collectives."""
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def inputs_for(make_inputs, kind, samples=3, channels=6):
    """Return inputs of several scales, so that depths differ."""
    u = make_inputs(kind, samples, channels=channels)
    return u * np.geomspace(1e-4, 1, samples).reshape(-1, *[1] * (u.ndim - 1)).astype(u.dtype)


def make_ready(make_block, set_weights, kind, u, **settings):
    """Return a block with random weights and a small bias, away from the kinks of ReLU."""
    layer = set_weights(make_block(kind, **settings), u, "random")
    bias = layer.b if kind == "dense" else layer.E
    bias.assign(0.001 * bias)
    # Nor where tanh is saturated, and the series of `implicit` long.
    drive = layer.B if kind == "dense" else layer.D
    drive.assign(0.1 * drive)
    return layer
