"""Files of models: how they are read, and the error of those that are not usable."""

import operator
import os

from .inputs import is_stream

# The protocol buffers of ONNX and the buffers of LiteRT have at most 2 GiB.
_LARGEST_FILE = 2**31 - 1


class ModelFileError(Exception):
    """Error of a file that is not a usable model; the message is one line."""


def read_model_file(path: str, format: str) -> bytes:
    """Return the content of a file.

    Args:
        path: The file. The runtimes themselves cannot open a path that is not UTF-8.
        format: The expected format with its article, such as `"an ONNX"`.

    Raises:
        ModelFileError: The file cannot be opened, is no regular file, or is too large.
    """
    try:
        if is_stream(path):
            raise ModelFileError(
                f"{path} is a pipe or a device: expected {format} file; write it into a file first"
            )
        if os.path.getsize(path) > _LARGEST_FILE:
            raise ModelFileError(f"{path} is not {format} model: expected at most 2 GiB")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be opened: {error.strerror}") from error


def one_line(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())


def check_threads(threads: int) -> int:
    """Return a number of threads that is one, else raise `ValueError`."""
    try:
        whole = 0 if isinstance(threads, bool) else operator.index(threads)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ValueError(
            f"`threads` must be an integer of at least 1. Received: threads={threads!r}"
        )
    return whole
