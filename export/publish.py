"""Publish a trained model, or check published models: `python -m export.publish`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from iterconv.command_errors import UserError, check_folder, run_command
from iterconv.command_help import make_command_app
from iterconv.command_start import make_console

from .export_start import importing_converters

FORMATS = ("saved_model", "onnx")
INPUTS = ("settable", "required", "fixed")


def publish(
    run: Annotated[str | None, typer.Argument(help="Folder of a finished run.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in the zoo.", show_default="MODEL_DATASET")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="Formats beside the .keras file, separated by commas: saved_model, onnx."
        ),
    ] = ",".join(FORMATS),
    zoo: Annotated[str, typer.Option(help="Folder of the zoo.")] = "saved_models",
    accuracy_loss: Annotated[
        float | None,
        typer.Option(
            help="Set the stopping threshold for the fewest updates that lose at most this share "
            "of the accuracy on the run's validation images, for example 0.005. It counts from the "
            "threshold of the run, also where fit --accuracy-loss has set it.",
            show_default="the run's threshold",
        ),
    ] = None,
    mean_updates: Annotated[
        float | None,
        typer.Option(
            help="Set the stopping threshold for at most this mean number of updates of an image "
            "on the run's validation images, for example 40; on training images where it has none.",
            show_default="the run's threshold",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="int8: write a second ONNX file, NAME_int8.onnx, with weights of 8 bits. Its "
            "stopping threshold is set anew on training images of the run.",
            show_default="no second file",
        ),
    ] = None,
    inputs: Annotated[
        str,
        typer.Option(
            help="How the depth of the ONNX file is set: settable, by optional inputs; required, "
            "by inputs that must always be given, for tools that take optional ones for "
            "constants; fixed, not at all."
        ),
    ] = INPUTS[0],
    license: Annotated[
        str | None,
        typer.Option(
            help="Licence of the net, by its SPDX name, such as CC-BY-4.0.",
            show_default="Apache-2.0",
        ),
    ] = None,
    hub_folder: Annotated[
        str | None,
        typer.Option(
            help="Copy the published model into this new folder, ready for "
            "huggingface_hub.upload_folder: RUN, or the model NAME of the zoo.",
            show_default="none",
        ),
    ] = None,
    hub_name: Annotated[
        str | None,
        typer.Option(
            help="OWNER/NAME of the repository on the hub, for the card of --hub-folder.",
            show_default="none",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Verify every published model: compare its files with the index, then run its "
            ".keras and ONNX files on test images.",
        ),
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="With --check: run SavedModels too. A SavedModel may read and write any file; "
            "without --trust only those of the checkout's own zoo are run.",
        ),
    ] = False,
) -> None:
    """Publish a trained model, or check published models.

    Writes the model of a run into a zoo, a folder with an index: as .keras, SavedModel and ONNX
    files with a model card.
    """
    # With --hub-folder, a published model may take the place of RUN.
    if (run is not None) + check != 1 and (check or hub_folder is None):
        raise UserError(
            "RUN or --check must be given, and not both: name the folder of a finished run"
        )
    if (hub_folder is None) != (hub_name is None):
        raise UserError("--hub-folder and --hub-name must be given together")
    if hub_folder is not None and (check or (run is None and name is None)):
        raise UserError("--hub-folder must be used with a RUN, or with --name of a published model")
    if trust and not check:
        raise UserError("--trust must be used with --check")
    budget = {"accuracy_loss": accuracy_loss, "mean_updates": mean_updates}
    calibrated = any(value is not None for value in budget.values())
    if calibrated and run is None:
        without = "--check" if check else "--hub-folder, or with a RUN"
        raise UserError(f"--accuracy-loss and --mean-updates must be used without {without}")
    _check_license(license, run)
    check_folder("--zoo", zoo)
    formats = _read_formats(format)
    _check_onnx_options(quantize, inputs, written=run is not None and "onnx" in formats)
    with importing_converters("publishing"):
        from .check import check_zoo
        from .hub_folder import check_hub_folder, write_hub_folder
        from .zoo_entry import publish_run
    console = make_console()
    if hub_folder is not None:
        # Before the work.
        check_hub_folder(Path(hub_folder), str(hub_name))
    if check:
        check_zoo(Path(zoo), console, trust)
    if run is not None:
        calibration = budget if calibrated else None
        name = publish_run(
            Path(run),
            name,
            Path(zoo),
            formats,
            console,
            calibration,
            quantize=quantize is not None,
            inputs=inputs,
            license=license,
        )
    if hub_folder is not None:
        write_hub_folder(Path(zoo), str(name), Path(hub_folder), str(hub_name))
        console.print(f"{hub_folder} is ready for upload to {hub_name}", soft_wrap=True)


def _check_license(license: str | None, run: str | None) -> None:
    if license is None:
        return
    if run is None:
        raise UserError("--license must be used with a RUN: a published model has its licence")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise UserError(f"--license must be an SPDX name, such as CC-BY-4.0: {license}")


def _read_formats(text: str) -> list[str]:
    formats = [part.strip() for part in text.split(",")]
    for wanted in formats:
        if wanted not in FORMATS:
            raise UserError(f"--format must be of {', '.join(FORMATS)}: {wanted}")
    return formats


def _check_onnx_options(quantize: str | None, inputs: str, written: bool) -> None:
    """Raise `UserError` where the options of the ONNX file are invalid, or none is `written`."""
    if quantize is not None:
        if quantize != "int8":
            raise UserError(f"--quantize must be int8: {quantize}")
        if not written:
            raise UserError("--quantize must be used with a RUN and the format onnx")
    if inputs not in INPUTS:
        raise UserError(f"--inputs must be of {', '.join(INPUTS)}: {inputs}")
    if inputs != INPUTS[0] and not written:
        raise UserError("--inputs must be used with a RUN and the format onnx")
    if inputs == "required" and quantize is not None:
        raise UserError("--inputs must be settable or fixed with --quantize: required")


def main() -> None:
    """Run the command."""
    run_command(make_command_app(publish), "python -m export.publish")


if __name__ == "__main__":
    main()
