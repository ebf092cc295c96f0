"""The table of a benchmark as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def to_markdown(*contents: Mapping[str, Any]) -> str:
    """Return the table of one or several JSON files of one benchmark as Markdown.

    The title, the machine, the dates and the commits stand above it. A cell that differs between
    the files has the texts of all, in their order.

    Args:
        contents: The contents of the files that `show` wrote.

    Raises:
        ValueError: The tables have different rows or columns.
    """
    tables = [content["table"] for content in contents]
    names = {tuple(line[0] for line in table["lines"]) for table in tables}
    if len(names) > 1 or len({len(table["header"]) for table in tables}) > 1:
        raise ValueError(f"the tables of {contents[0]['title']!r} have different rows or columns")
    head = ["---", *["---:"] * (len(tables[0]["header"]) - 1)]
    lines = zip(*([table["header"], *table["lines"]] for table in tables), strict=True)
    rows = [[_beside(cells) for cells in zip(*line, strict=True)] for line in lines]
    rows.insert(1, head)
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"## {contents[0]['title']}\n\n{_facts(contents)}\n\n{text}\n"


def _facts(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the machine and, for each file, its date, commit and note."""
    machine = contents[0]["machine"]
    versions = (f"{name} {value}" for name, value in machine["versions"].items() if value)
    facts = [
        f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['flags'])}",
        f"Python {machine['python']}, {', '.join(versions)}",
    ]
    for content in contents:
        facts += [f"{content['date']}, commit {content['machine']['commit']}", content["note"]]
    return "; ".join(filter(None, facts))


def _beside(cells: Sequence[str]) -> str:
    """Return the texts of a cell in several tables: one if all are equal."""
    texts = [cell.strip() for cell in cells]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)
