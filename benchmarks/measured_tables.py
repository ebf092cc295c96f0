"""What all benchmarks print and write."""

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
    """Print a table, and write the numbers behind it as JSON where a file is named.

    Args:
        title: The table's.
        header: The columns; the first one names the candidates.
        lines: A text for each column.
        content: What the file holds beside the title.
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
