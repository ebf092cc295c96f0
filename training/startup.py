"""Loading TensorFlow without the notes that it writes at its import."""

import contextlib
import os


def load_quietly() -> None:
    """Import `keras_iterconv`, and TensorFlow with it.

    TensorFlow writes some lines about the processor and missing GPU libraries straight to file
    descriptor 2 while it loads, whatever its log level; an import that fails raises as ever.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.ExitStack() as stack:
        kept = os.dup(2)
        stack.callback(os.close, kept)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        os.dup2(nowhere, 2)
        stack.callback(os.dup2, kept, 2)
        import keras_iterconv  # noqa: F401
