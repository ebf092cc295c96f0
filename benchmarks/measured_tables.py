"""The output of all benchmarks: a table and a JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 120


def show(
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    content: dict[str, Any],
    output: str | None,
) -> None:
    """Print a table, and write its data as JSON if a file is given.

    Args:
        title: The title of the table.
        header: The heads of the columns; the first column names the candidates.
        lines: The rows of the table, with one text for each column.
        content: The content of the file beside the title.
        output: The file, or None.
    """
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(header):
        table.add_column(column, justify="left" if number == 0 else "right")
    for line in lines:
        table.add_row(*line)
    Console(width=WIDTH).print(table, highlight=False)
    if output is not None:
        text = json.dumps({"title": title, **content}, indent=2)
        Path(output).write_text(text + "\n", encoding="utf-8")
