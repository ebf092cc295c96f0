"""Messages about names a user got wrong."""

import difflib
from collections.abc import Iterable


def unknown_name(argument: str, name: str, known: Iterable[str]) -> str:
    """Explain that `name` is not one of `known`, and offer the nearest.

    Args:
        argument: The argument's name, as the user wrote it.
        name: What the user gave.
        known: The names that would have worked.

    Returns:
        One sentence for an error message.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"`{argument}` must be one of {', '.join(known)}.{hint} Received: {argument}={name!r}"
