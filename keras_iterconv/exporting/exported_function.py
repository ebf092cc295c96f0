"""What an exported file computes: from pictures as they are to classes, depth and status."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support import keras_graph
from keras_iterconv._support.outputs import LINEAR, SIGMOID, SOFTMAX, output_activation
from keras_iterconv.depth.depth_model import iterated_blocks
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.layers import IteratedBlock, ResidualStage, ResidualUpdate
from keras_iterconv.unrolling import Unrolled

OUTPUTS = ("logits", "probabilities", "depth", "status")
# Logits of probabilities that are 0 or 1 would be infinite.
_SMALLEST = float(np.finfo(np.float32).tiny)
_SMALLEST_REST = 2.0**-24


class Normalization(NamedTuple):
    """What standardises pictures: `[C]` each, of raw pixel values."""

    mean: np.ndarray
    std: np.ndarray


def shared_depth(model: keras.Model) -> DepthSettings | None:
    """Return the depth that all blocks with a threshold have; None where there is no such block.

    Raises:
        ValueError: They differ.
    """
    depths = {
        DepthSettings(block.max_unroll, block.threshold)
        for block in iterated_blocks(model)
        if block.threshold is not None
    }
    if len(depths) > 1:
        raise ValueError(
            "An exported file has one `threshold` and one `max_unroll` for all blocks of adaptive "
            f"depth; those of {model.name!r} differ: {sorted(depths)}. Set one for all by "
            "`keras_iterconv.set_depth`"
        )
    return depths.pop() if depths else None


def run_block(block: IteratedBlock, inputs: tf.Tensor, depth: DepthSettings) -> Unrolled:
    """Run a NAIS block to any depth."""
    update, state = block.build_update(inputs), block.make_initial_state(inputs)
    return block.iterate(update, state, depth.max_unroll, depth.threshold)


def infer(
    model: keras.Model,
    images: tf.Tensor,
    normalization: Normalization,
    depth: DepthSettings | None = None,
    multi_label: bool = False,
    run_block: Callable = run_block,
) -> dict[str, tf.Tensor]:
    """Return the four outputs of an exported file.

    Args:
        model: A functional model in float32 from standardised images to logits, or to
            probabilities by a softmax or, where `multi_label`, a sigmoid. Probabilities are
            returned as they are, and the logits are computed from them.
        images: float32 `[N, H, W, C]`, raw pixel values.
        normalization: What standardises them.
        depth: For the blocks of adaptive depth; None for their own.
        multi_label: Whether each class has a probability of its own.
        run_block: Runs a NAIS block to a depth.

    Returns:
        `logits` and `probabilities`, float32 `[N, classes]`; `depth` and `status`, int32
        `[N, blocks]`.

    Raises:
        ValueError: The model's outputs are neither.
    """
    activation = _check_activation(model, multi_label)
    depths, statuses = [], []

    def apply(layer, *args, **kwargs):
        if isinstance(layer, IteratedBlock):
            own = DepthSettings(layer.max_unroll, layer.threshold or 0.0)
            unrolled = run_block(layer, *args, own if layer.threshold is None else depth or own)
        elif isinstance(layer, (ResidualStage, ResidualUpdate)):
            unrolled = layer(*args, **kwargs, return_depth=True)
        else:
            return layer(*args, **kwargs)
        depths.append(unrolled.depth)
        statuses.append(unrolled.status)
        return unrolled.state

    outputs = keras_graph.run(model, (images - normalization.mean) / normalization.std, apply)
    logits, probabilities = as_logits(outputs, activation), outputs
    if activation == LINEAR:
        probabilities = tf.nn.sigmoid(logits) if multi_label else tf.nn.softmax(logits)
    values = (logits, probabilities, tf.stack(depths, axis=1), tf.stack(statuses, axis=1))
    return dict(zip(OUTPUTS, values, strict=True))


def as_logits(outputs: tf.Tensor, activation: str) -> tf.Tensor:
    """Return the logits of a model's outputs, finite where these are.

    Args:
        outputs: `[N, classes]`.
        activation: What made them: `"linear"`, and they are logits; `"softmax"`, and their
            logarithms are; or `"sigmoid"`.
    """
    if activation == LINEAR:
        return outputs
    logits = _log(outputs, _SMALLEST)
    return logits if activation == SOFTMAX else logits - _log(1 - outputs, _SMALLEST_REST)


def _log(values: tf.Tensor, smallest: float) -> tf.Tensor:
    # Not `maximum`, which may lose a NaN.
    return tf.math.log(tf.where(values < smallest, smallest, values))


def _check_activation(model: keras.Model, multi_label: bool) -> str:
    activation, expected = output_activation(model), SIGMOID if multi_label else SOFTMAX
    if activation not in (LINEAR, expected):
        ends = "in a layer that does not tell" if activation is None else f"in a {activation}"
        raise ValueError(
            f"`model` must end in logits or in a {expected}, as a Keras layer or activation: "
            f"an exported file has both. Received: model={model.name!r}, which ends {ends}"
        )
    return activation
