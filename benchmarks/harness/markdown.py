"""The table of a benchmark as Markdown."""

from collections.abc import Mapping
from typing import Any


def to_markdown(content: Mapping[str, Any]) -> str:
    """Return the table of a JSON file as Markdown.

    The title, the machine, the date and the commit stand above it.

    Args:
        content: The content of the file that `show` wrote.
    """
    machine, table = content["machine"], content["table"]
    head = ["---", *["---:"] * (len(table["header"]) - 1)]
    rows = [table["header"], head, *table["lines"]]
    text = "\n".join("| " + " | ".join(cell.strip() for cell in row) + " |" for row in rows)
    versions = (f"{name} {value}" for name, value in machine["versions"].items() if value)
    facts = [
        f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['flags'])}",
        f"Python {machine['python']}, {', '.join(versions)}",
        f"{content['date']}, commit {machine['commit']}",
        content["note"],
    ]
    return f"## {content['title']}\n\n{'; '.join(filter(None, facts))}\n\n{text}\n"
