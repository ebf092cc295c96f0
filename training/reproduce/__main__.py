"""Reproduce experiments of the papers: `python -m training.reproduce run toy`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from iterconv.command_errors import (
    UserError,
    as_user_error,
    check_folder,
    run_command,
)
from iterconv.command_help import Command, make_app
from iterconv.command_start import load_quietly, make_console

app = make_app("Reproduce experiments of the papers.")
PICTURES = (".png", ".pdf", ".svg")


@app.command(name="list", cls=Command)
def list_experiments() -> None:
    """List the experiments that `run` knows."""
    load_quietly()
    from rich.table import Table

    from .catalogue_of_experiments import NAMES, find_experiment

    table = Table("name", "paper", "shows", "at the scale cpu")
    for experiment in map(find_experiment, NAMES):
        table.add_row(experiment.name, experiment.source, experiment.title, experiment.reduced)
    make_console().print(table)


@app.command(cls=Command)
def run(
    name: Annotated[str, typer.Argument(help="Name of an experiment; `list` shows them.")],
    scale: Annotated[
        str, typer.Option(help="cpu (reduced, for two cores) or paper (in full).")
    ] = "cpu",
    seeds: Annotated[
        int | None,
        typer.Option(help="Number of seeds of each condition.", show_default="the experiment's"),
    ] = None,
    output: Annotated[
        str, typer.Option(help="Folder for results and trainings, one for all experiments.")
    ] = "runs/reproduce",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build and time each net, and write nothing."),
    ] = False,
) -> None:
    """Run an experiment of a paper, and judge its claims.

    Finished cases are kept: repeat the command to continue after an interruption.

    --dry-run shows what the trainings would cost: parameters, operations of a training step for one
    image, and hours, estimated from a few steps of each net.
    """
    if seeds is not None and not 1 <= seeds <= 100:
        raise UserError(f"--seeds must be from 1 to 100: {seeds}")
    check_folder("--output", output)
    load_quietly()
    from .catalogue_of_experiments import NAMES, find_experiment
    from .runner import run_experiment

    _check_scale(scale)
    experiment = find_experiment(name)
    console, folder = make_console(), Path(output) / scale
    if dry_run:
        from .dry_run import estimate

        estimate(experiment, scale, console, seeds)
        return
    others = [find_experiment(other) for other in NAMES]
    results = run_experiment(experiment, folder, scale, console, seeds, others)
    for claim in experiment.claims:
        verdict = claim.judge(results)
        console.print(f"{claim.source}: {claim.text} ", end="", soft_wrap=True)
        console.print(verdict.outcome.value, style="bold")
        console.print(f"  {verdict.evidence}", style="dim", soft_wrap=True)
    _draw(console, str(folder / f"{name}.png"), experiment.draw, results)


@app.command(cls=Command)
def report(
    scale: Annotated[str, typer.Option(help="Scale of the results, cpu or paper.")] = "cpu",
    output: Annotated[
        str, typer.Option(help="Folder of the results, the --output of `run`.")
    ] = "runs/reproduce",
    docs: Annotated[
        str | None,
        typer.Option(help="Folder for results.md.", show_default="the checkout's docs/"),
    ] = None,
) -> None:
    """Judge the claims of all experiments, and write pages.

    Writes report.html, a page that needs no other file, into the folder of the results; and
    results.md with its pictures and the raw numbers.
    """
    check_folder("--output", output)
    load_quietly()
    from .catalogue_of_experiments import NAMES, find_experiment
    from .findings import count_outcomes, find_all
    from .results_report import find_documents, write_report

    _check_scale(scale)
    documents, folder = find_documents(docs), Path(output) / scale
    findings = find_all([find_experiment(name) for name in NAMES], folder, scale)
    write_report(findings, folder / "report.html", documents)
    console = make_console()
    for outcome, count in count_outcomes(findings).items():
        console.print(f"{outcome}: {count}")
    for file in (folder / "report.html", documents / "results.md"):
        console.print(f"The results are in {file}", soft_wrap=True)


@app.command(name="depth-figure", cls=Command)
def depth_figure(
    name: Annotated[str, typer.Argument(help="Name of a model in the zoo.")],
    zoo: Annotated[
        str | None,
        typer.Option(help="Folder of the zoo.", show_default="the checkout's saved_models/"),
    ] = None,
    output: Annotated[
        str, typer.Option(help="Image file to write: .png, .pdf or .svg.")
    ] = "depth.png",
    images: Annotated[int, typer.Option(help="Largest number of test images.")] = 2000,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Stopping threshold, also for a model of fixed depth.",
            show_default="the model's own",
        ),
    ] = None,
    max_unroll: Annotated[
        int | None,
        typer.Option(help="Largest number of updates of a block.", show_default="the model's own"),
    ] = None,
) -> None:
    """Draw the depth of a published model on test images.

    Reproduces the layout of Fig. 5 of NAIS-Net.
    """
    _check_picture(output)
    if images < 2:
        raise UserError(f"--images must be at least 2: {images}")
    load_quietly()
    import numpy as np

    import keras_iterconv as ki
    from keras_iterconv.datasets import load_published_data
    from keras_iterconv.depth.figure_by_class import draw_depths, measure_depths
    from keras_iterconv.zoo.index import find_zoo, read_index

    from .depth_table import print_depths

    folder = as_user_error(find_zoo, zoo)
    model = as_user_error(ki.load_pretrained, name, folder, names={"name": "NAME"})
    given: dict[str, Any] = {"threshold": threshold, "max_unroll": max_unroll}
    given = {setting: value for setting, value in given.items() if value is not None}
    if given:
        as_user_error(ki.set_depth, model, **given)
    entry = read_index(folder)["models"][name]
    data = load_published_data(entry)
    scaling: dict[str, Any] = {
        key: np.float32(entry[key]) for key in ("mean", "std") if key in entry
    }
    data = dataclasses.replace(data, **scaling)
    depths = as_user_error(measure_depths, model, name, data, images)
    console = make_console()
    print_depths(console, depths)
    _draw(console, output, draw_depths, depths)


def _check_scale(scale: str) -> None:
    """Raise `UserError` if there is no such scale."""
    # Imported late: it imports NumPy.
    from .experiment import SCALES

    if scale not in SCALES:
        raise UserError(f"--scale must be one of {', '.join(SCALES)}: {scale}")


def _check_picture(output: str) -> None:
    """Raise `UserError` if the image file cannot be written, before it is computed."""
    path = Path(output)
    if path.suffix.lower() not in PICTURES:
        raise UserError(f"--output must end in {', '.join(PICTURES)}: {output!r}")
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"--output must be a file in a folder that exists: {output!r}")


def _draw(console: Console, output: str, draw: Callable, measured: Any) -> None:
    """Write the figure of the measurements, and print its path."""
    # Imported late: it imports all of the package.
    from keras_iterconv._support.files import replacing

    try:
        with replacing(Path(output)) as partial:
            draw(partial, measured)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    console.print(f"The figure is in {output}", soft_wrap=True)


def main() -> None:
    """Run the command line."""
    run_command(app, "python -m training.reproduce")


if __name__ == "__main__":
    main()
