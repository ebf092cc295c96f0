"""Callbacks that restore the guarantees of an `IterativeModel` before the model is evaluated."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_iterconv._support.private_keras import layers_within
from keras_iterconv.layers.guaranteed_layer import guaranteed_layers


class RestoreGuarantees(keras.callbacks.Callback):
    """Callback that restores the guarantees of a model's layers before each use of the model.

    `IterativeModel` runs it after all other callbacks, since these may change weights:
    `SwapEMAWeights` before a validation, `EarlyStopping` at the end, `BackupAndRestore` at the
    start. Where another callback saves the model, `IterativeModel` restores the guarantees first.
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.model.restore_guarantees()

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.model.restore_guarantees()

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self.model.restore_guarantees()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.model.restore_guarantees()

    def on_train_end(self, logs: dict | None = None) -> None:
        # The optimizer may have replaced the weights by their averages.
        self.model.restore_guarantees()


class ConvergeCaps(RestoreGuarantees):
    """Callback that also converges all caps after the training of an epoch.

    `IterativeModel` runs it before all other callbacks. Training continues from the singular
    vectors that are found here. Saving does not change these vectors, so that training does not
    depend on when the model is saved.
    """

    _trained = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        # A model that was trained before has its norms. Computed again, they may differ in the last
        # bit, and a resumed run would differ from an uninterrupted one.
        if int(self.model.optimizer.iterations.numpy()) == 0:
            self.model.converge_caps()
        super().on_train_begin()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._trained = True

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._converge()
        super().on_test_begin()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # Does nothing after a validation, which has converged the caps already.
        self._converge()
        super().on_epoch_end(epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.model.converge_caps()
        super().on_train_end()

    def _converge(self):
        if self._trained:
            self.model.converge_caps()
        self._trained = False


def with_callbacks(
    model: keras.Model, method: Callable, args: Any, kwargs: Any, first: Any, last: Any
) -> inspect.BoundArguments:
    """Return the arguments of a method with two callbacks added.

    Args:
        model: The model.
        method: `fit`, `evaluate` or `predict`.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        first: The callback that runs before those of the user, or None.
        last: The callback that runs after those of the user.
    """
    given = inspect.signature(method).bind(*args, **kwargs)
    callbacks = given.arguments.get("callbacks")
    if not guaranteed_layers(layers_within(model)):
        return given
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if first is None:  # Keras validates in `fit`, and passes the list of that call.
            return given
        raise ValueError(
            "`callbacks` must be a list of callbacks for a model with caps or projections, "
            "since `fit` runs callbacks before and after these. Received: a CallbackList"
        )
    if callbacks is None:
        callbacks = []
    elif isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    given.arguments["callbacks"] = [*([] if first is None else [first]), *callbacks, last]
    return given
