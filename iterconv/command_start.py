"""What each command starts with: TensorFlow, loaded without its notes, and a console."""

import contextlib
import os

from rich.console import Console

from iterconv.command_errors import UserError


def make_console() -> Console:
    """Return a console that prints what it is given, letter by letter.

    Rich would take `[red]` and `:smile:` in the name of a folder for markup, and fail on `[/red]`.
    """
    return Console(markup=False, emoji=False, highlight=False)


def load_quietly() -> None:
    """Import `keras_iterconv`, and TensorFlow with it.

    TensorFlow writes some lines about the processor and missing GPU libraries straight to file
    descriptor 2 while it loads, whatever its log level.

    Raises:
        UserError: The import fails, because of another Keras backend for example.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:
            pass  # It is closed: nothing can be seen of the lines.
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
