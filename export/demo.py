"""Write the demonstration for browsers: `python -m export.demo`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from iterconv.command_errors import UserError, check_folder, run_command
from iterconv.command_help import make_command_app
from iterconv.command_start import load_quietly, make_console


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
    load_quietly()
    # The ONNX converter calls deprecated functions, about which TensorFlow warns.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        # Imported here, since it needs the extra `export`; other commands run without it.
        from .demo_folder import write_demo
    except ImportError as error:
        raise UserError(
            f'{error}: the demo needs `pip install "keras-iterconv[export]"`'
        ) from error
    package = None if runtime is None else Path(runtime)
    write_demo(Path(output), zoo, package, make_console())


def main() -> None:
    """Run the command."""
    run_command(make_command_app(demo), "python -m export.demo")


if __name__ == "__main__":
    main()
