"""The progress of a training: a bar on a terminal, one line in a notebook, a log otherwise."""

import io
import time
import uuid
from typing import Any

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

from .callbacks import RunRecorder

# Least time between two changes of a notebook's line; each is a message to the browser.
_NOTEBOOK_SECONDS = 0.25
_NOTEBOOK_WIDTH = 115


class ProgressLines(keras.callbacks.Callback):
    """Prints a line for each epoch, and shows the progress within it where it can be replaced.

    On a terminal this is a bar. In a notebook it is an output that the epoch's line replaces, so
    that a saved notebook has one line for each epoch. Elsewhere, as in a file, nothing is shown
    within an epoch, and lines begin with date and time.

    Args:
        console: The console to print to.
        epochs: The number of epochs of the run.
        steps: The number of steps of an epoch.
        record: The callback that holds the measures of the epochs.
    """

    def __init__(self, console: Console, epochs: int, steps: int, record: RunRecorder):
        super().__init__()
        self.console = console
        self.epochs = epochs
        self.steps = steps
        self.record = record
        self._progress: Any = None
        self._notebook_line: _NotebookLine | None = None

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
            "the first step compiles the model", total=self.steps, completed=self.record.steps
        )
        if self.console.is_jupyter:
            self._notebook_line = _NotebookLine(_as_text(self._progress))

    def on_train_batch_end(self, batch, logs=None):
        described = f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}"
        self._progress.update(self._task, advance=1, description=described)
        if self._notebook_line is not None and self._notebook_line.due():
            self._notebook_line.replace(_as_text(self._progress))

    def on_epoch_end(self, epoch, logs=None):
        self._progress.stop()
        row = self.record.rows[-1]
        validated = "val_accuracy" in row
        validation = f"validation {row['val_accuracy']:.2%}  " if validated else ""
        line = (
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.2%}  {validation}"
            f"{row['images_per_second']:.0f} images/s  {row['seconds']:.1f} s"
        )
        if self._notebook_line is not None:
            self._notebook_line.replace(line)
        elif self.console.is_terminal:
            self.console.print(line, soft_wrap=True)
        else:
            self.console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}", soft_wrap=True)

    def stop(self):
        """Remove the progress bar, also after an interruption."""
        if self._progress is not None:
            self._progress.stop()


class _NotebookLine:
    """An output of a notebook's cell that can be replaced.

    Rich's own bar needs ipywidgets, and leaves no trace in a saved notebook.
    """

    def __init__(self, text: str):
        # In a notebook it is there.
        from IPython import display

        self._display = display
        self._id = uuid.uuid4().hex
        self._shown = time.monotonic()
        self._display.display({"text/plain": text}, raw=True, display_id=self._id)

    def due(self) -> bool:
        """Return whether the line may change again."""
        return time.monotonic() - self._shown >= _NOTEBOOK_SECONDS

    def replace(self, text: str) -> None:
        """Show another text."""
        self._shown = time.monotonic()
        self._display.update_display({"text/plain": text}, raw=True, display_id=self._id)


def _as_text(progress: Progress) -> str:
    """Return the bar as one line."""
    page = Console(
        file=io.StringIO(), width=_NOTEBOOK_WIDTH, force_jupyter=False, force_terminal=False
    )
    with page.capture() as captured:
        page.print(progress.get_renderable())
    return captured.get().strip()
