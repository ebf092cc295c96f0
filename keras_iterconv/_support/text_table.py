"""Rich tables as plain text, for printed reports."""

import io

from rich.console import Console
from rich.table import Table

WIDTH = 110


def as_text(table: Table) -> str:
    """Return a table as plain text, the same in a terminal, in a notebook and in a file."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None, highlight=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
