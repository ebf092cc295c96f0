"""Train a named model on a named data set: `python -m training.fit --model nais10`."""

from typing import Annotated

import typer
from rich.console import Console

from .errors import UserError, run_command
from .help_layout import make_command_app
from .startup import load_quietly


def fit(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Its name, for example nais10 or nais_dense.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="digits (the default), mnist, cifar10, cifar100, or digitclutterN, N = 2 to 5."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The largest learning rate.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="cosine (the default), step, step-twice, constant or cyclical."),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Decay of kernels, times the learning rate, a step.")
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="Limit of the gradient's norm; 5, and 0 for none.")
    ] = None,
    augment: Annotated[str | None, typer.Option(help="none, standard or addons.")] = None,
    pixels: Annotated[
        str | None,
        typer.Option(help="standardized (the default), or unit: values from 0 to 1."),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Share of the training images that validates; 0.1, and 0 for none."),
    ] = None,
    max_unroll: Annotated[
        int | None, typer.Option(help="Updates a block, or the most of them.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Norm of an update below which an image stops.")
    ] = None,
    step_size: Annotated[float | None, typer.Option(help="h of an update, in (0, 1].")] = None,
    gradient: Annotated[
        str | None,
        typer.Option(help="unroll, recompute (less memory), implicit or frozen (faster, biased)."),
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Blocks a stage.")] = None,
    coupling: Annotated[
        float | None,
        typer.Option(help="Share of the blocks' mean in each block's gradient, from 0 to 1."),
    ] = None,
    lipschitz_cap: Annotated[
        float | None, typer.Option(help="Bound of each residual function's Lipschitz constant.")
    ] = None,
    shared_initialization: Annotated[
        bool | None,
        typer.Option(
            "--shared-initialization/--independent-initialization",
            help="Start the blocks of a stage equal; the default where there is a coupling.",
        ),
    ] = None,
    mixed_precision: Annotated[
        bool | None, typer.Option("--mixed-precision", help="Half precision products.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="none, or mirrored: all GPUs, or two logical CPUs.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    limit_train: Annotated[
        int | None, typer.Option(help="Use this many training images only.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="The run's folder, new or empty; runs/MODEL-DATASET-N.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with the run in this folder, with its settings.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="A paper's settings, for example nais-cifar10.")
    ] = None,
) -> None:
    """Train a named model on a named data set.

    Shows how well and how deep it computes. What is not given has a default that fits the model
    and the data set.
    """
    given = {name: value for name, value in context.params.items() if value is not None}
    given.pop("output", None)
    load_quietly()
    console = Console()
    if resume is not None:
        given.pop("resume")
        if given or output is not None:
            extra = next(iter(given), "output").replace("_", "-")
            raise UserError(f"--resume takes all settings from its folder; leave out --{extra}")
        from . import session

        session.resume(resume, console)
        return

    from .settings import make_settings

    settings = make_settings(**given)
    from . import session

    session.start(settings, output, console)


def main() -> None:
    """Run the command line."""
    run_command(make_command_app(fit), "python -m training.fit")


if __name__ == "__main__":
    main()
