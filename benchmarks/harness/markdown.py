"""The table of a benchmark as Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def to_markdown(content: Mapping[str, Any]) -> str:
    """Return the table of a JSON file as Markdown.

    The title, the machine, the date and the commit stand above it.

    Args:
        content: The content of the file that `show` wrote.
    """
    facts = "; ".join(filter(None, [machine_text(content), content["date"], content["note"]]))
    return f"## {content['title']}\n\n{facts}\n\n{table_text(content['table'])}\n"


def machine_text(content: Mapping[str, Any]) -> str:
    """Return the processor, the versions and the commit that a JSON file was measured with."""
    machine = content["machine"]
    versions = (f"{name} {value}" for name, value in machine["versions"].items() if value)
    return (
        f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['flags'])}; "
        f"Python {machine['python']}, {', '.join(versions)}; commit {machine['commit']}"
    )


def table_text(*tables: Mapping[str, Any]) -> str:
    """Return a table as Markdown, or several tables of the same rows and columns as one.

    A cell that differs between the tables has the texts of all, in their order.

    Args:
        tables: Each a dict of `header` and `lines`, as `show` writes it.

    Raises:
        ValueError: The tables have different rows or columns.
    """
    names = {tuple(line[0] for line in table["lines"]) for table in tables}
    # A head may hold a rate that was measured.
    heads = {tuple(re.sub(r"\d+", "0", cell) for cell in table["header"]) for table in tables}
    if len(names) > 1 or len(heads) > 1:
        raise ValueError("the tables have different rows or columns")
    lines = zip(*([table["header"], *table["lines"]] for table in tables), strict=True)
    rows = [[_beside(cells) for cells in zip(*line, strict=True)] for line in lines]
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _beside(cells: Sequence[str]) -> str:
    """Return the texts of a cell in several tables: one if all are equal."""
    texts = [cell.strip() for cell in cells]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)
