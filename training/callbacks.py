"""What happens at the end of an epoch: time, history, checkpoints and the bar on the screen."""

import math
import time
from typing import TYPE_CHECKING

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from iterconv.command_errors import TrainingDivergedError

from .checkpoint import check_finite, save_checkpoint
from .epoch_state import EpochState, save_epoch_state
from .finite_watch import FiniteWatch
from .run_folder import RunFolder

if TYPE_CHECKING:
    from .session import _Session


class RunRecorder(keras.callbacks.Callback):
    """Validates, and keeps the history and the last and the best state in the run's folder.

    The history is written before the checkpoint: a run that is killed between the two does the
    epoch again and drops the row. Nothing that is not finite replaces what is there.

    Args:
        session: The run.
        folder: Its folder.
        rows: The epochs that are done, from `RunFolder.read_history`.
        state: Where in its next epoch the run was cut off; None for the beginning.
        checkpoint_minutes: The least time between two checkpoints within an epoch.
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
        # Steps of the epoch, and seconds that a run that was cut off has spent on it.
        self.steps, self._earlier = 0, 0.0
        self._state = state
        self._checkpoint_seconds = 60 * checkpoint_minutes
        self._last = self._first_end = self._begin = self._saved = 0.0
        # Since this process began the epoch: steps, and seconds spent on writing.
        self._taken, self._writing = 0, 0.0
        self._watch = FiniteWatch(session)

    def on_epoch_begin(self, epoch, logs=None):
        self.steps, self._earlier = 0, 0.0
        if self._state is not None:
            # Only now: before, Keras resets the metrics, and `fit` converges the caps.
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
            raise self._diverged(f"the loss is not finite any more; {found}")
        due = self._last - self._saved >= self._checkpoint_seconds
        # The end of an epoch has a checkpoint of its own.
        if due and self.steps < self.session.steps:
            self._save_within_epoch()

    def on_epoch_end(self, epoch, logs=None):
        # The first step is left out where there are others: at the start of a run it holds the
        # compilation.
        begin, steps = (self._first_end, self._taken - 1) if self._taken > 1 else (self._begin, 1)
        rate = self.session.settings.batch_size * steps / (self._last - begin - self._writing)
        self._check_weights()
        measured = self._validate()
        # Written into Keras's own dict, so that the callbacks behind this one log them too.
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
        # Without a validation part no epoch is the best.
        best = bool(measured) and measured["val_accuracy"] > max(
            (earlier["val_accuracy"] for earlier in self.rows), default=-math.inf
        )
        self.rows.append(row)
        self.folder.write_history(self.rows)
        if best:
            save_checkpoint(self.model, self.folder, self.folder.best, epoch + 1)
        save_checkpoint(self.model, self.folder, self.folder.last, epoch + 1)
        self.folder.within_epoch.unlink(missing_ok=True)

    def _validate(self) -> dict[str, float]:
        """Return what the epoch reaches on the validation part, nothing where there is none."""
        if not len(self.session.data.validation):
            return {}
        validation = self.session.evaluate(self.session.data.validation)
        if not math.isfinite(validation.loss):
            raise self._diverged("the loss on the validation images is not finite any more")
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
            f"a smaller --learning-rate; the last good state is in {kept}"
        )


class ProgressLines(keras.callbacks.Callback):
    """Shows a bar within an epoch, where there is a screen, and leaves a line for each.

    Args:
        console: Where to write.
        epochs: The number of epochs of the run.
        steps: The number of steps of an epoch.
        record: Where the epoch's numbers are.
    """

    def __init__(self, console: Console, epochs: int, steps: int, record: RunRecorder):
        super().__init__()
        self.console = console
        self.epochs = epochs
        self.steps = steps
        self.record = record
        self._progress = None

    def on_epoch_begin(self, epoch, logs=None):
        self._progress = Progress(
            TextColumn(f"epoch {epoch + 1:>3}/{self.epochs}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._progress.start()
        self._task = self._progress.add_task(
            "the first step compiles the net", total=self.steps, completed=self.record.steps
        )

    def on_train_batch_end(self, batch, logs=None):
        described = f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}"
        self._progress.update(self._task, advance=1, description=described)

    def on_epoch_end(self, epoch, logs=None):
        self._progress.stop()
        row = self.record.rows[-1]
        validated = "val_accuracy" in row
        validation = f"validation {row['val_accuracy']:.2%}  " if validated else ""
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.2%}  {validation}"
            f"{row['images_per_second']:.0f} images/s  {row['seconds']:.1f} s",
            soft_wrap=True,
        )

    def stop(self):
        """Take the bar off the screen, also when training was cut off."""
        if self._progress is not None:
            self._progress.stop()
