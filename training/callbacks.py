"""What happens at the end of an epoch: time, history, checkpoints and the bar on the screen."""

import math
import time
from collections.abc import Callable

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

from .checkpoint import save_checkpoint
from .errors import TrainingDivergedError
from .evaluation import Evaluation
from .run_folder import RunFolder


class Record(keras.callbacks.Callback):
    """Validates, and keeps the history and the last and the best state in the run's folder.

    The history is written before the checkpoint: a run that is killed between the two does the
    epoch again and drops the row.

    Args:
        folder: The run's folder.
        rows: The epochs that are done, from `RunFolder.read_history`.
        batch_size: Images a step.
        validate: Evaluates the model on the validation part; None where there is none, and so no
            best epoch.
    """

    def __init__(
        self,
        folder: RunFolder,
        rows: list[dict[str, float]],
        batch_size: int,
        validate: Callable[[], Evaluation] | None,
    ):
        super().__init__()
        self.folder = folder
        self.rows = rows
        self.batch_size = batch_size
        self.validate = validate
        self._last = self._first_end = self._begin = 0.0
        self._steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()
        self._steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self._last = time.perf_counter()
        self._steps += 1
        if self._steps == 1:
            self._first_end = self._last
        if logs and not math.isfinite(logs["loss"]):
            raise TrainingDivergedError(
                f"the loss is not finite any more in epoch {len(self.rows) + 1}: try a smaller "
                f"--learning-rate; the last good state is in {self.folder.last}"
            )

    def on_epoch_end(self, epoch, logs=None):
        # The first step is left out where there are others: at the start of a run it holds the
        # compilation.
        begin, steps = (self._first_end, self._steps - 1) if self._steps > 1 else (self._begin, 1)
        rate = self.batch_size * steps / (self._last - begin)
        measured = {}
        if self.validate is not None:
            validation = self.validate()
            measured = {"val_loss": validation.loss, "val_accuracy": validation.accuracy}
        # Written into Keras's own dict, so that the callbacks behind this one log them too.
        logs.update(measured)
        row = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "accuracy": float(logs["accuracy"]),
            **measured,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": time.perf_counter() - self._begin,
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


class EpochLines(keras.callbacks.Callback):
    """Shows a bar within an epoch, where there is a screen, and leaves a line for each.

    Args:
        console: Where to write.
        epochs: The number of epochs of the run.
        steps: The number of steps of an epoch.
        record: Where the epoch's numbers are.
    """

    def __init__(self, console: Console, epochs: int, steps: int, record: Record):
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
        self._task = self._progress.add_task("the first step compiles the net", total=self.steps)

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
            highlight=False,
            soft_wrap=True,
        )

    def stop(self):
        """Take the bar off the screen, also when training was cut off."""
        if self._progress is not None:
            self._progress.stop()
