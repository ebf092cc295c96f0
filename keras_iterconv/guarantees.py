"""Callbacks that keep the guarantees of an `IterativeModel` true while other callbacks run."""

import keras


class RestoreGuarantees(keras.callbacks.Callback):
    """Restores the guarantees of a model's layers wherever the model is about to be looked at.

    `IterativeModel` puts it behind all other callbacks, since these may change weights:
    `SwapEMAWeights` before a validation, `EarlyStopping` at the end, `BackupAndRestore` at the
    start. What a callback saves, the model itself restores before it is written.
    """

    def on_train_begin(self, logs=None):
        self.model.restore_guarantees()

    def on_test_begin(self, logs=None):
        self.model.restore_guarantees()

    def on_predict_begin(self, logs=None):
        self.model.restore_guarantees()

    def on_epoch_end(self, epoch, logs=None):
        self.model.restore_guarantees()

    def on_train_end(self, logs=None):
        # The optimizer may have put averages in the place of the weights.
        self.model.restore_guarantees()


class ConvergeCaps(RestoreGuarantees):
    """Also converges all caps after an epoch's training, before any other callback runs.

    Training goes on from the vectors of these norms. Nothing else moves them, so that training
    does not depend on when the model is saved.
    """

    _trained = False

    def on_train_begin(self, logs=None):
        # A model that has been trained comes with the norms that it was left with: found anew they
        # may differ in a last bit, and a run that goes on must be one that was never cut off.
        if int(self.model.optimizer.iterations.numpy()) == 0:
            self.model.converge_caps()
        super().on_train_begin()

    def on_epoch_begin(self, epoch, logs=None):
        self._trained = True

    def on_test_begin(self, logs=None):
        self._converge()
        super().on_test_begin()

    def on_epoch_end(self, epoch, logs=None):
        # Validation has converged them already.
        self._converge()
        super().on_epoch_end(epoch)

    def on_train_end(self, logs=None):
        self.model.converge_caps()
        super().on_train_end()

    def _converge(self):
        if self._trained:
            self.model.converge_caps()
        self._trained = False
