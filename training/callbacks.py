"""The training callback that writes history and checkpoints."""

import math
import time
from typing import TYPE_CHECKING

import keras

from iterconv.command_errors import TrainingDivergedError

from .checkpoint import check_finite, save_checkpoint
from .distribution import share_value
from .epoch_state import EpochState, save_epoch_state
from .finite_watch import FiniteWatch
from .run_folder import RunFolder

if TYPE_CHECKING:
    from .session import _Session

# Several replicas write a checkpoint within an epoch at a multiple of this number of steps.
AGREED_STEPS = 10


class RunRecorder(keras.callbacks.Callback):
    """Validates after each epoch, and writes the history and the last and best checkpoint.

    The history is written before the checkpoint: a run that is killed between the two repeats the
    epoch and drops the row. Weights that are not finite never replace a checkpoint.

    Args:
        session: The run.
        folder: The run's folder.
        rows: The measures of the finished epochs, from `RunFolder.read_history`.
        state: The state within the next epoch in which the run stopped; None for its beginning.
        checkpoint_minutes: Least time between two checkpoints within an epoch, in minutes.
    """

    def __init__(
        self,
        session: "_Session",
        folder: RunFolder,
        rows: list[dict[str, float]],
        state: EpochState | None,
        checkpoint_minutes: float,
    ):
        super().__init__()
        self.session = session
        self.folder = folder
        self.rows = rows
        # Finished steps of the epoch, and the seconds that an interrupted run spent on it.
        self.steps, self._earlier = 0, 0.0
        self._state = state
        self._checkpoint_seconds = 60 * checkpoint_minutes
        self._last = self._first_end = self._begin = self._saved = 0.0
        # Steps, and seconds spent on writing, since this process began the epoch.
        self._taken, self._writing = 0, 0.0
        self._watch = FiniteWatch(session)

    def on_epoch_begin(self, epoch, logs=None):
        self.steps, self._earlier = 0, 0.0
        if self._state is not None:
            # Not earlier: before this point Keras resets the metrics, and `fit` converges the caps.
            self._state.restore(self.model)
            self.steps, self._earlier = self._state.steps, self._state.seconds
            self._state = None
        self._begin = self._saved = time.perf_counter()
        self._taken, self._writing = 0, 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._watch.before_step()

    def on_train_batch_end(self, batch, logs=None):
        self._last = time.perf_counter()
        self._taken += 1
        self.steps += 1
        if self._taken == 1:
            self._first_end = self._last
        if logs and not math.isfinite(logs["loss"]):
            found = self._watch.explain(len(self.rows), self.steps - 1)
            raise self._diverged(f"the loss is not finite; {found}")
        due = self._agree(self._last - self._saved >= self._checkpoint_seconds)
        # `on_epoch_end` writes its own checkpoint.
        if due and self.steps < self.session.steps:
            self._save_within_epoch()

    def _agree(self, due: bool) -> bool:
        """Return whether to write a checkpoint now, which all workers do at the same step."""
        if self.session.strategy.num_replicas_in_sync == 1:
            return due
        # Asking the chief takes milliseconds.
        return self.steps % AGREED_STEPS == 0 and bool(share_value(self.session.strategy, due))

    def on_epoch_end(self, epoch, logs=None):
        # The first step is excluded if there are others: at the start of a run it includes the
        # compilation.
        begin, steps = (self._first_end, self._taken - 1) if self._taken > 1 else (self._begin, 1)
        rate = self.session.settings.batch_size * steps / (self._last - begin - self._writing)
        self._check_weights()
        measured = self._validate()
        # Written into Keras's own dict, so that the later callbacks log them too.
        logs.update(measured)
        row = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "accuracy": float(logs["accuracy"]),
            **measured,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": self._earlier + time.perf_counter() - self._begin,
            "images_per_second": rate,
        }
        self.rows.append(row)
        # Without a validation part there is no best epoch.
        *earlier, _ = self.session.comparable(self.rows)
        best = bool(measured) and measured["val_accuracy"] > max(
            (other["val_accuracy"] for other in earlier), default=-math.inf
        )
        self.folder.write_history(self.rows)
        if best:
            save_checkpoint(self.model, self.folder, self.folder.best, epoch + 1)
        save_checkpoint(self.model, self.folder, self.folder.last, epoch + 1)
        self.folder.within_epoch.unlink(missing_ok=True)

    def _validate(self) -> dict[str, float]:
        """Return loss and accuracy on the validation part; an empty dict without one."""
        if not len(self.session.data.validation):
            return {}
        validation = self.session.evaluate(self.session.data.validation)
        if not math.isfinite(validation.loss):
            raise self._diverged("the loss on the validation images is not finite")
        return {"val_loss": validation.loss, "val_accuracy": validation.accuracy}

    def _save_within_epoch(self) -> None:
        self._check_weights()
        seconds = self._earlier + self._last - self._begin
        save_epoch_state(self.model, self.folder, len(self.rows), self.steps, seconds)
        self._saved = time.perf_counter()
        self._writing += self._saved - self._last

    def _check_weights(self) -> None:
        try:
            check_finite(self.model)
        except TrainingDivergedError as error:
            raise self._diverged(str(error)) from error

    def _diverged(self, what: str) -> TrainingDivergedError:
        within = self.folder.within_epoch
        kept = within if within.exists() else self.folder.last
        return TrainingDivergedError(
            f"{what} (epoch {len(self.rows) + 1}, step {self.steps} of {self.session.steps}): try "
            f"a smaller --learning-rate; the last finite weights are in {kept}"
        )
