"""Several runs of all tables side by side: `python -m benchmarks.beside FOLDER FOLDER`."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.harness.markdown import machine_text, table_text
from benchmarks.harness.measured_tables import read_content
from benchmarks.harness.rounds_note import rounds_note
from benchmarks.table_list import TABLES
from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app


def beside(
    folders: Annotated[list[Path], typer.Argument(help="Folders of `python -m benchmarks`.")],
) -> None:
    """Print the tables of several runs as Markdown: each table once, with the texts of all runs."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in TABLES:
        contents = [read_content(folder / f"{name}.json") for folder in folders]
        if all(contents):
            found[name] = contents
        elif any(contents):
            there = folders[[bool(content) for content in contents].index(True)]
            raise UserError(f"{name}.json is not in all of the folders: {there} has it")
    if not found:
        raise UserError(f"no table in {folders[0]}")
    parts = [*_machines(folders, list(found.values())), *(_text(*item) for item in found.items())]
    print("\n\n".join(parts))


def _machines(
    folders: Sequence[Path], tables: Sequence[Sequence[Mapping[str, Any]]]
) -> Iterator[str]:
    """Yield the machine of the runs; of each, with its folder, where they differ."""
    by_folder = [
        list(dict.fromkeys(machine_text(contents[n]) for contents in tables))
        for n in range(len(folders))
    ]
    if len({text for texts in by_folder for text in texts}) == 1:
        yield by_folder[0][0]
        return
    for folder, texts in zip(folders, by_folder, strict=True):
        yield f"{folder}: {' and '.join(texts)}"


def _text(name: str, contents: Sequence[Mapping[str, Any]]) -> str:
    """Return a table under its name, with its command, and with the date and note of each run."""
    commands = {_command(name, content) for content in contents}
    if len(commands) > 1:
        raise UserError(f"{name} was measured by different commands: {', '.join(sorted(commands))}")
    parts = [f"`{commands.pop()}`"]
    parts += [
        " ".join(filter(None, (each["date"][:16], rounds_note(each) or each["note"])))
        for each in contents
    ]
    try:
        table = table_text(*(content["table"] for content in contents))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return f"### {name}\n\n{contents[0]['title']}. {'; '.join(parts)}\n\n{table}"


def _command(name: str, content: Mapping[str, Any]) -> str:
    """Return the command that made a table, without the place of its output."""
    options = list(content["command"])
    if "--output" in options:
        place = options.index("--output")
        del options[place : place + 2]
    return shlex.join(["python", "-m", f"benchmarks.{TABLES[name].module}", *options])


app = make_command_app(beside)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.beside")
