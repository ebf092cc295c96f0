"""Publish trained models, or check what is published: `python -m export.publish`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from iterconv.command_errors import UserError, check_folder, run_command
from iterconv.command_help import make_command_app
from iterconv.command_start import load_quietly, make_console

FORMATS = ("saved_model", "onnx")


def publish(
    run: Annotated[str | None, typer.Argument(help="The folder of a finished run.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name in the zoo.", show_default="MODEL_DATASET")
    ] = None,
    format: Annotated[
        str, typer.Option(help="Beside the .keras file, separated by commas: saved_model, onnx.")
    ] = ",".join(FORMATS),
    zoo: Annotated[str, typer.Option(help="The zoo's folder.")] = "saved_models",
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Verify every model that is published: compare its files with the index, then "
            "run its .keras and ONNX files on test images.",
        ),
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="With --check: run SavedModels too. One may read and write any file; without it "
            "only those of the checkout's own zoo are run.",
        ),
    ] = False,
) -> None:
    """Publish a trained model, or check what is published.

    Writes the model of a run as .keras, SavedModel and ONNX files with a card into a zoo, a
    folder with an index.
    """
    if check == (run is not None):
        raise UserError("give the folder of a run, or --check alone")
    if trust and not check:
        raise UserError("--trust belongs to --check")
    check_folder("--zoo", zoo)
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
        from .zoo_entry import publish_run
    except ImportError as error:
        raise UserError(
            f'{error}: publishing needs `pip install "keras-iterconv[export]"`'
        ) from error
    console = make_console()
    if check:
        check_zoo(Path(zoo), console, trust)
    else:
        publish_run(Path(run), name, Path(zoo), formats, console)


def main() -> None:
    """Run the command."""
    run_command(make_command_app(publish), "python -m export.publish")


if __name__ == "__main__":
    main()
