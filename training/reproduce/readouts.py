"""The states of a net after each of its updates, and what its classifier reads out of them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.datasets import ImageData, evaluation_batches

BATCH = 1000


def states_by_depth(model: keras.Model, images: np.ndarray | tf.Tensor) -> np.ndarray:
    """Return the states of a net of one width after 0, 1, ..., K updates, `[K + 1, N, units]`.

    The net is one iterated block of K updates, or K blocks of one update each.

    Args:
        model: The net.
        images: The images as the net expects them, `[N, height, width, channels]`.
    """
    blocks = ki.iterated_blocks(model)
    if len(blocks) > 1:
        first = blocks[0].input[0]
        outputs = [first, *(block.output for block in blocks)]
        return np.stack(keras.Model(model.input, outputs)(images))
    (block,) = blocks
    inputs = block_inputs(model, images)
    states = [block.make_initial_state(inputs)]
    for k in range(block.max_unroll):
        states.append(block.update(states[-1], inputs, k))
    return np.stack(states)


def states_at(model: keras.Model, images: np.ndarray, depths: Sequence[int]) -> np.ndarray:
    """Return the states of a net of one tied block after some numbers of updates.

    Args:
        model: The net.
        images: The images as the net expects them, `[N, height, width, channels]`.
        depths: The numbers of updates, ascending, also beyond those of the training.

    Returns:
        The states, `[len(depths), N, units]`.
    """
    (block,) = ki.iterated_blocks(model)
    inputs = block_inputs(model, images)
    update, state = block.build_update(inputs), block.make_initial_state(inputs)
    states = []
    for before, depth in zip((0, *depths), depths, strict=False):
        state = block.iterate(update, state, depth - before, 0.0).state
        states.append(state)
    return np.stack(states)


def block_inputs(model: keras.Model, images: np.ndarray | tf.Tensor) -> tf.Tensor:
    """Return the inputs u of a net's only block, `[N, channels]`."""
    (block,) = ki.iterated_blocks(model)
    return keras.Model(model.input, block.input)(images)


def read_out(model: keras.Model, data: ImageData) -> tuple[np.ndarray, np.ndarray]:
    """Return cross-entropy and accuracy on the test part, read out after 0, 1, ..., K updates.

    The states pass through the classifier that was trained on the last one.

    Args:
        model: The net; its classifier is the layer `"logits"`.
        data: The data set.

    Returns:
        The mean cross-entropies and the accuracies, `[K + 1]` each.
    """
    head = model.get_layer("logits")
    losses, wrong, images_in = [], [], []
    for images, labels in batches_of_test(data):
        logits = [head(states).numpy() for states in states_by_depth(model, images)]
        truth = labels.numpy()
        losses.append([data.task.mean_loss(truth, each) for each in logits])
        wrong.append([data.task.is_wrong(each, truth).mean() for each in logits])
        images_in.append(len(truth))
    return (
        np.average(losses, axis=0, weights=images_in),
        1 - np.average(wrong, axis=0, weights=images_in),
    )


def batches_of_test(data: ImageData) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """Return the batches of the test part, in its order."""
    return evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=BATCH)


def as_json(values: Any) -> Any:
    """Return numbers as nested lists that JSON represents: None for what is not finite."""
    values = np.asarray(values, np.float64)
    if values.ndim:
        return [as_json(value) for value in values]
    return float(f"{values:.7g}") if math.isfinite(values) else None
