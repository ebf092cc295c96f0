"""Loading TensorFlow without the notes that it writes at its import."""

import contextlib
import os

from .errors import UserError


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
