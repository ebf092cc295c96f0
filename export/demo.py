"""Write the demonstration for browsers: `python -m export.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from iterconv.command_errors import check_folder, run_command
from iterconv.command_help import make_command_app
from iterconv.command_start import make_console

from .export_start import importing_converters


def demo(
    output: Annotated[str, typer.Option(help="Folder to write.")] = "demo",
    zoo: Annotated[
        str | None,
        typer.Option(help="Folder of the zoo.", show_default="the checkout's saved_models/"),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="The npm package onnxruntime-web: its folder, or the .tgz file that npm pack "
            "writes.",
            show_default="npm pack downloads it",
        ),
    ] = None,
) -> None:
    """Write the demonstration for browsers.

    It is a folder for any static server. Its page classifies drawn digits and adds up bits with
    nets of the zoo, and shows their depth. It needs no build step and requests nothing from outside
    of the folder. A browser opens it from a server only, such as
    `python -m http.server --directory demo`, and not as a file.
    """
    check_folder("--output", output)
    if zoo is not None:
        check_folder("--zoo", zoo)
    with importing_converters("the demo"):
        from .demo_folder import write_demo
    package = None if runtime is None else Path(runtime)
    write_demo(Path(output), zoo, package, make_console())


def main() -> None:
    """Run the command."""
    run_command(make_command_app(demo), "python -m export.demo")


if __name__ == "__main__":
    main()
