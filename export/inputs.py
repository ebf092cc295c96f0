"""What a path of the command line leads to, before it is opened."""

import os
import stat


def is_stream(path: str) -> bool:
    """Return whether a path is a pipe or a device.

    Opening a pipe waits for a writer, and a device may never end.

    Raises:
        OSError: Nothing is there.
    """
    mode = os.stat(path).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
