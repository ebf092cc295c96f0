"""The start of each command: loading TensorFlow without its log lines, and a console."""

import contextlib
import os
import warnings

from rich.console import Console

from iterconv.command_errors import UserError

# Width of tables where there is no terminal, so that lines of a log are not broken at 80.
LOG_WIDTH = 200


def make_console() -> Console:
    """Return a console that prints text without interpreting markup.

    Otherwise Rich would interpret `[red]` and `:smile:` in the name of a folder, and fail on
    `[/red]`. A command that a notebook starts by `!` has a terminal that cannot move its cursor;
    it counts as none. Jupyter's kernels have the variable by which it is known.
    """
    of_notebook = "JPY_PARENT_PID" in os.environ
    console = Console(
        markup=False, emoji=False, highlight=False, force_terminal=False if of_notebook else None
    )
    if not (console.is_terminal or console.is_jupyter):
        console.width = LOG_WIDTH
    return console


def load_quietly() -> None:
    """Import `keras_iterconv`, and TensorFlow with it.

    While TensorFlow loads, it writes lines about the processor and missing GPU libraries directly
    to file descriptor 2, at any log level. They are discarded. So are Pillow's warnings, of damaged
    metadata and of large pictures, which are read all the same.

    Raises:
        UserError: The import fails, for example because of another Keras backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:
            pass  # Descriptor 2 is closed, so the lines are not visible anyway.
        else:
            stack.callback(os.close, kept)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, kept, 2)
        try:
            import keras_iterconv  # noqa: F401
        except ImportError as error:
            raise UserError(str(error)) from error
