"""Several runs of all tables side by side: `python -m benchmarks.beside FOLDER FOLDER`."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness.markdown import to_markdown
from benchmarks.harness.measured_tables import read_content
from benchmarks.table_list import TABLES
from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app


def beside(
    folders: Annotated[list[Path], typer.Argument(help="Folders of `python -m benchmarks`.")],
) -> None:
    """Print the tables of several runs as Markdown: each table once, with the texts of all runs."""
    parts = []
    for name in TABLES:
        contents = [read_content(folder / f"{name}.json") for folder in folders]
        there = [folder for folder, found in zip(folders, contents, strict=True) if found]
        if not there:
            continue
        if there != folders:
            raise UserError(f"{name}.json is not in all of the folders: only in {there[0]}")
        try:
            parts.append(to_markdown(*contents))
        except ValueError as error:
            raise UserError(str(error)) from error
    if not parts:
        raise UserError(f"no table in {folders[0]}")
    print("\n".join(parts))


app = make_command_app(beside)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.beside")
