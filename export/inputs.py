"""Checks of the paths on the command line before they are opened."""

import os
import stat


def is_stream(path: str) -> bool:
    """Return whether a path is a pipe or a device.

    Both are refused: opening a pipe blocks until a writer opens it, and a device may have no end.

    Raises:
        OSError: The path does not exist.
    """
    mode = os.stat(path).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
