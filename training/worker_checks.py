"""Checks that all workers train the same thing; otherwise they would wait for each other."""

import hashlib
import json
from typing import Any

import keras
import tensorflow as tf

from iterconv.command_errors import UserError
from keras_iterconv._support.replicas import count_workers

from .epoch_state import EpochState


def check_same_settings(strategy: tf.distribute.Strategy, described: Any) -> None:
    """Raise an error if the workers were started with different settings, data or versions.

    Args:
        strategy: The strategy.
        described: What must be equal, as `describe_run` returns it.

    Raises:
        UserError: They differ.
    """
    if not _are_equal(strategy, json.dumps(described, default=repr).encode()):
        raise UserError(
            "all workers must be started with the same command, the same data and the same "
            "versions of keras_iterconv, Keras, TensorFlow, NumPy and Python; this one differs"
        )


def check_same_run(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    epochs: int,
    state: EpochState | None,
    path: str,
) -> None:
    """Raise an error if the workers loaded different files of a run.

    Args:
        strategy: The strategy.
        model: The model, at the last checkpoint.
        epochs: The number of finished epochs.
        state: The state within the next epoch; None for its beginning.
        path: The folder of the run.

    Raises:
        UserError: They differ.
    """
    if count_workers(strategy) < 2:
        return
    steps, values = (0, []) if state is None else (state.steps, state.values)
    variables = [*model.variables, *model.optimizer.variables]
    arrays = [*(variable.numpy() for variable in variables), *values]
    digests = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    if not _are_equal(strategy, json.dumps([epochs, steps, *digests]).encode()):
        raise UserError(
            f"the workers found different files in {path}: copy this folder from worker 0 to "
            "all others"
        )


def _are_equal(strategy: tf.distribute.Strategy, content: bytes) -> bool:
    """Return whether the workers have equal contents; a call that all of them must make."""
    count = count_workers(strategy)
    if count < 2:
        return True
    # Six bytes, so that the sum of many workers is exact.
    number = int.from_bytes(hashlib.sha256(content).digest()[:6], "big")
    return int(strategy.reduce("SUM", tf.constant(number, tf.int64), None)) == number * count
