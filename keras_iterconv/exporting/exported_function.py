"""The function of an exported file: from raw images to logits, probabilities, depth and status."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support import keras_graph
from keras_iterconv._support.outputs import LINEAR, SIGMOID, SOFTMAX, output_activation
from keras_iterconv._support.private_keras import mask_of, set_mask
from keras_iterconv.depth.block_calls import block_calls, iterated_blocks
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.layers.protocol import Block, is_block
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS, Task
from keras_iterconv.unrolling import Unrolled

_ACTIVATIONS = {SOFTMAX: tf.nn.softmax, SIGMOID: tf.nn.sigmoid}
# Bounds of p and 1 - p: the logits of probabilities 0 and 1 are infinite.
_SMALLEST = float(np.finfo(np.float32).tiny)
_SMALLEST_REST = 2.0**-24


def shared_depth(model: keras.Model) -> DepthSettings | None:
    """Return the common depth settings of the blocks of adaptive depth; None without such blocks.

    Raises:
        ValueError: The settings of these blocks differ.
    """
    depths = {
        DepthSettings(block.max_unroll, block.threshold)
        for block in iterated_blocks(model)
        if block.threshold is not None
    }
    if len(depths) > 1:
        raise ValueError(
            "An exported file has one `threshold` and one `max_unroll` for all blocks of adaptive "
            f"depth; those of {model.name!r} differ: {sorted(depths)}. Set the same for all by "
            "`keras_iterconv.set_depth`"
        )
    return depths.pop() if depths else None


def output_names(task: Task) -> tuple[str, ...]:
    """Return the names of the outputs of an exported file, in order."""
    return (*task.output_names, "depth", "status")


def run_block(block: Block, inputs: tf.Tensor, depth: DepthSettings) -> Unrolled:
    """Return the result of an adjustable block at the given depth settings."""
    return block.run_to(inputs, depth.max_unroll, depth.threshold)


def infer(
    model: keras.Model,
    images: tf.Tensor,
    preprocessing: Preprocessing,
    depth: DepthSettings | None = None,
    task: Task = TASKS["classes"],
    run_block: Callable = run_block,
) -> dict[str, tf.Tensor]:
    """Return the outputs of an exported file.

    Args:
        model: Functional model in float32 from standardised images to logits, or to probabilities
            by the activation of `task`. Probabilities are returned unchanged, and the logits are
            computed from them. For a task without probabilities, a model of any one output.
        images: Raw pixel values, float32 `[N, H, W, C]`.
        preprocessing: Standardisation of raw pixel values.
        depth: Depth settings of the blocks of adaptive depth; None for the blocks' own settings.
        task: Task of the model.
        run_block: Function `(block, inputs, depth)` that runs an adjustable block.

    Returns:
        `logits` and `probabilities`, float32 `[N, classes]` (`[N, positions, classes]` for one
        label a position), or `outputs` for a regression; `depth` and `status`, int32 `[N, blocks]`.

    Raises:
        ValueError: The model's outputs are neither logits nor such probabilities, or a block lies
            in a subclassed model or layer.
    """
    activation = _check_activation(model, task)
    depths, statuses = [], []

    def apply(layer, *args, **kwargs):
        if not is_block(layer):
            return layer(*args, **kwargs)
        if layer.adjustable:
            _check_no_schedule(layer, kwargs)
            own = DepthSettings(layer.max_unroll, layer.threshold or 0.0)
            unrolled = run_block(layer, *args, own if layer.threshold is None else depth or own)
            _pass_mask_on(args, unrolled.state)
        else:
            unrolled = layer(*args, **kwargs, return_depth=True)
        depths.append(unrolled.depth)
        statuses.append(unrolled.status)
        return unrolled.state

    outputs = keras_graph.run(model, preprocessing(images), apply)
    if len(depths) != len(block_calls(model)):
        raise ValueError(
            "`model` must hold all blocks in a functional or Sequential model, nested or not, to "
            f"be exported. Received: model={model.name!r}, with a block in a subclassed model or a "
            "layer of your own"
        )
    predictions = _predict(outputs, activation, task)
    values = (*predictions, tf.stack(depths, axis=1), tf.stack(statuses, axis=1))
    return dict(zip(output_names(task), values, strict=True))


def _check_no_schedule(block: Any, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a tied stage that is called with a schedule."""
    if options.get("schedule") is not None:
        raise ValueError(
            f"The tied stage {block.name!r} must be called without a `schedule` to be exported, "
            "since the file sets its number of updates; set `max_unroll` instead. "
            f"Received: schedule={options['schedule']!r}"
        )


def _pass_mask_on(inputs: Any, state: Any) -> None:
    """Attach the Keras mask of a block's inputs to its state, as a call of the block does."""
    mask = mask_of(inputs)
    if mask is not None:
        for tensor in tf.nest.flatten(state):
            set_mask(tensor, mask)


def as_logits(outputs: tf.Tensor, activation: str | None) -> tf.Tensor:
    """Return the logits of a model's outputs, finite where the outputs are finite.

    Args:
        outputs: Outputs of the model, `[N, classes]`.
        activation: Activation of the outputs: `"linear"` for logits, `"softmax"` for
            probabilities whose logarithms are logits, or `"sigmoid"`.
    """
    if activation == LINEAR:
        return outputs
    logits = _log(outputs, _SMALLEST)
    return logits if activation == SOFTMAX else logits - _log(1 - outputs, _SMALLEST_REST)


def _log(values: tf.Tensor, smallest: float) -> tf.Tensor:
    # Not `maximum`, which may not propagate NaN.
    return tf.math.log(tf.where(values < smallest, smallest, values))


def _predict(outputs: tf.Tensor, activation: str | None, task: Task) -> tuple[tf.Tensor, ...]:
    """Return the tensors of `task.output_names`, from a model's outputs and their activation."""
    if task.activation is None:
        return (outputs,)
    if activation != LINEAR:
        return as_logits(outputs, activation), outputs
    return outputs, _ACTIVATIONS[task.activation](outputs)


def _check_activation(model: keras.Model, task: Task) -> str | None:
    activation, expected = output_activation(model), task.activation
    if expected is not None and activation not in (LINEAR, expected):
        ends = "in a layer of unknown outputs" if activation is None else f"in a {activation}"
        raise ValueError(
            f"`model` must end in logits or in a {expected}, as a Keras layer or activation, "
            f"because an exported file has both. Received: model={model.name!r}, which ends {ends}"
        )
    return activation
