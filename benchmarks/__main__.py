"""All measured tables by one command: `python -m benchmarks`."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness.benchmark_options import Device, DeviceOption
from benchmarks.harness.machine import describe_machine, machine_facts
from benchmarks.harness.markdown import to_markdown
from benchmarks.harness.measured_tables import read_content
from benchmarks.table_list import TABLES, command_of
from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app

ROOT = Path(__file__).parents[1]
# A trial with small sizes takes about so long, for the most part to load TensorFlow.
QUICK_MINUTES = 0.7


class TablesFailedError(UserError):
    """Error of a run in which some benchmarks failed."""

    exit_code = 1


def benchmarks(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"A table, repeatable: {', '.join(TABLES)}.", show_default="all"),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(help="Number of timed rounds.", min=1, show_default="that of each benchmark"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and one round.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure tables again that are already there.")
    ] = False,
    device: DeviceOption = Device.CPU,
    output: Annotated[str, typer.Option(help="Folder of the results.")] = "runs/benchmarks",
) -> None:
    """Measure all tables: a JSON file and a log for each, and tables.md with all tables.

    A table that is already in the folder, with the same options, commit, versions and processor, is
    not measured again. A benchmark that fails does not stop the others.
    """
    on_device = [name for name, table in TABLES.items() if table.gpu or device == Device.CPU]
    names = list(only or on_device)
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise UserError(f"--only must be of {', '.join(TABLES)}: {unknown[0]}")
    elsewhere = [name for name in names if name not in on_device]
    if elsewhere:
        raise UserError(f"--only {elsewhere[0]} is of the CPU alone: leave out --device {device}")
    folder = Path(output).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{describe_machine()}; results in {folder}", flush=True)
    failed, spent, expected = [], 0.0, 0.0
    minutes = {name: QUICK_MINUTES if quick else TABLES[name].minutes for name in names}
    for number, name in enumerate(names):
        module, options = command_of(TABLES[name], quick, rounds, device)
        place = f"[{number + 1}/{len(names)}] {name}"
        file = folder / f"{name}.json"
        options += ["--output", str(file)]
        if not again and _is_made(file, options):
            print(f"{place}: already there", flush=True)
            continue
        # As much slower as the tables before.
        slowness = spent / expected if expected else 1.0
        left = sum(minutes[each] for each in names[number:]) * slowness
        own = minutes[name] * slowness
        print(f"{place}: about {own:.0f} min, all that is left {left:.0f} min", flush=True)
        begin = time.monotonic()
        if not _run([sys.executable, "-m", module, *options], folder / f"{name}.log"):
            failed.append(name)
            continue
        spent, expected = spent + (time.monotonic() - begin) / 60, expected + minutes[name]
    _write_tables(folder)
    if failed:
        raise TablesFailedError(
            f"{len(failed)} of {len(names)} tables failed: {', '.join(failed)}; "
            f"{folder / failed[0]}.log says why"
        )


def _is_made(file: Path, options: list[str]) -> bool:
    """Return whether a file has the table of these options, of this commit and machine."""
    content = read_content(file)
    return content.get("command") == options and content.get("machine") == machine_facts()


def _run(command: list[str], log: Path) -> bool:
    """Run a command with its errors in a file, and return whether it succeeded."""
    with log.open("w", encoding="utf-8") as errors:
        code = subprocess.run(command, cwd=ROOT, stderr=errors).returncode
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        print(f"failed with exit code {code}: {' '.join(last)}", flush=True)
    return code == 0


def _write_tables(folder: Path) -> None:
    """Write all tables of the folder as Markdown."""
    contents = [read_content(folder / f"{name}.json") for name in TABLES]
    parts = [to_markdown(content) for content in contents if "table" in content]
    if parts:
        (folder / "tables.md").write_text("\n".join(parts), encoding="utf-8")
        print(f"all tables are in {folder / 'tables.md'}")


app = make_command_app(benchmarks)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks")
