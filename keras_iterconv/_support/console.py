"""The console that commands write to."""

import sys

from rich.console import Console


def make_console() -> Console:
    """Return a console that prints what it is given, letter by letter.

    Rich would take `[red]` and `:smile:` in the name of a folder for markup, and fail on `[/red]`.
    What the screen's encoding does not have, a name that is not UTF-8 for example, is escaped.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(markup=False, emoji=False, highlight=False)
