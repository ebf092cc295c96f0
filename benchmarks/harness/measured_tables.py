"""The output of all benchmarks: a table and a JSON file."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.machine import describe_machine, machine_facts, now
from benchmarks.harness.rounds_note import rounds_note

WIDTH = 120


def show(
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    content: Mapping[str, Any],
    output: str | None,
) -> None:
    """Print a table, and write its data as JSON if a file is given.

    The file also holds the table, the machine, the versions, the commit and the command.

    Args:
        title: The title of the table.
        header: The heads of the columns; the first column names the candidates.
        lines: The rows of the table, with one text for each column.
        content: The content of the file beside them.
        output: The file, or None.
    """
    table = Table(title=f"{title}; {describe_machine()}", title_justify="left")
    for number, column in enumerate(header):
        table.add_column(column, justify="left" if number == 0 else "right")
    for line in lines:
        table.add_row(*line)
    Console(width=WIDTH).print(table, highlight=False)
    note = rounds_note(content)
    if note:
        print(note)
    if output is not None:
        everything = {
            "title": title,
            "command": sys.argv[1:],
            "date": now(),
            "machine": machine_facts(),
            "note": note,
            "table": {"header": header, "lines": lines},
            **content,
        }
        text = json.dumps(everything, indent=2)
        Path(output).write_text(text + "\n", encoding="utf-8")


def read_content(file: Path) -> dict[str, Any]:
    """Return what `show` wrote to a file; empty if there is none, or it was cut."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
