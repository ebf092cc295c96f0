"""Publish trained models, or check what is published: `python -m export.publish`."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from iterconv.training.errors import UserError, run_command
from iterconv.training.startup import load_quietly
from rich.console import Console

FORMATS = ("saved_model", "onnx")


def publish(
    run: Annotated[str | None, typer.Argument(help="The folder of a finished run.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name in the zoo; MODEL_DATASET.")] = None,
    format: Annotated[
        str, typer.Option(help="Beside the .keras file, separated by commas: saved_model, onnx.")
    ] = ",".join(FORMATS),
    zoo: Annotated[str, typer.Option(help="The zoo's folder.")] = "saved_models",
    check: Annotated[
        bool, typer.Option("--check", help="Verify every model that is published.")
    ] = False,
) -> None:
    """Publish the model of a run: .keras, SavedModel, ONNX and a card, in a zoo with an index."""
    if check == (run is not None):
        raise UserError("give the folder of a run, or --check alone")
    formats = [part.strip() for part in format.split(",")]
    for wanted in formats:
        if wanted not in FORMATS:
            raise UserError(f"--format must be of {', '.join(FORMATS)}: {wanted}")
    load_quietly()
    # The converter calls what TensorFlow advises against.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        # Packages of an extra: without it the other commands still run.
        from .check import check_zoo
        from .entry import publish_run
        from .zoo import ZooError
    except ImportError as error:
        raise UserError(
            f'{error}: publishing needs `pip install "keras-iterconv[export]"`'
        ) from error
    console = Console()
    try:
        if not check:
            publish_run(Path(run), name, Path(zoo), formats, console)
        else:
            check_zoo(Path(zoo), console)
    except ZooError as error:
        raise UserError(str(error)) from error


def main() -> None:
    """Run the command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(publish)
    run_command(app, "python -m export.publish")


if __name__ == "__main__":
    main()
