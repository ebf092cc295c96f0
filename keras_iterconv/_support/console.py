"""The console that commands write to."""

from rich.console import Console


def make_console() -> Console:
    """Return a console that prints what it is given, letter by letter.

    Rich would take `[red]` and `:smile:` in the name of a folder for markup, and fail on `[/red]`.
    """
    return Console(markup=False, emoji=False, highlight=False)
