"""Train a named model on a named data set: `python -m training.fit --model nais10`."""

from typing import Annotated

import typer

from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app, options_of
from iterconv.command_start import load_quietly, make_console

_data = options_of("Model and data")
_training = options_of("Training")
_depth = options_of("Depth of NAIS-Nets")
_residual = options_of("Residual nets")
_run = options_of("Run")
OWN = "the model's own"


def fit(
    context: typer.Context,
    model: Annotated[str | None, _data("Its name, for example nais10 or nais_dense.")] = None,
    dataset: Annotated[
        str | None,
        _data("digits, mnist, cifar10, cifar100, or digitclutterN, N = 2 to 5.", "digits"),
    ] = None,
    preset: Annotated[str | None, _data("A paper's settings, for example nais-cifar10.")] = None,
    limit_train: Annotated[int | None, _data("Number of training images to use.", "all")] = None,
    validation_share: Annotated[
        float | None, _data("Share of the training images that validates; 0 for none.", "0.1")
    ] = None,
    augment: Annotated[
        str | None,
        _data(
            "none, standard or addons.",
            "standard for convolutional nets on digits and CIFAR, else none",
        ),
    ] = None,
    pixels: Annotated[
        str | None,
        _data("standardized, or unit: values from 0 to 1.", "standardized"),
    ] = None,
    epochs: Annotated[
        int | None, _training("Passes over the training images.", "by model and data set")
    ] = None,
    batch_size: Annotated[int | None, _training("Images a step.", "64, dense nets 128")] = None,
    learning_rate: Annotated[
        float | None, _training("The largest learning rate.", "0.05, dense nets 0.02")
    ] = None,
    schedule: Annotated[
        str | None, _training("cosine, step, step-twice, constant or cyclical.", "cosine")
    ] = None,
    weight_decay: Annotated[
        float | None, _training("Decoupled decay of kernels, times the learning rate, a step.", "0")
    ] = None,
    clip_norm: Annotated[
        float | None, _training("Limit of the gradient's norm; 0 for none.", "5")
    ] = None,
    mixed_precision: Annotated[
        bool | None,
        _training("Products in float16 on a GPU, bfloat16 on a CPU.", "", "--mixed-precision"),
    ] = None,
    strategy: Annotated[
        str | None, _training("none, or mirrored: all GPUs, or two logical CPUs.", "none")
    ] = None,
    seed: Annotated[int | None, _training("Seed of weights, order and augmentation.", "0")] = None,
    max_unroll: Annotated[
        int | None,
        _depth("Updates of a block; with a threshold the largest number of them.", OWN),
    ] = None,
    threshold: Annotated[
        float | None, _depth("Norm of an update below which an image stops.", OWN)
    ] = None,
    step_size: Annotated[float | None, _depth("h of an update, in (0, 1].", OWN)] = None,
    gradient: Annotated[
        str | None,
        _depth("unroll, recompute (less memory) or frozen (faster, biased).", OWN),
    ] = None,
    blocks: Annotated[int | None, _residual("Blocks of a stage, NAIS-Nets' too.", OWN)] = None,
    coupling: Annotated[
        float | None,
        _residual("Share of the blocks' mean in each block's gradient, from 0 to 1.", "none"),
    ] = None,
    lipschitz_cap: Annotated[
        float | None, _residual("Bound of each residual function's Lipschitz constant.", OWN)
    ] = None,
    shared_initialization: Annotated[
        bool | None,
        _residual(
            "Start the blocks of a stage equal, or each by itself.",
            "equal where there is a coupling",
            "--shared-initialization/--independent-initialization",
        ),
    ] = None,
    output: Annotated[
        str | None, _run("The run's folder, new or empty.", "runs/MODEL-DATASET-N")
    ] = None,
    resume: Annotated[
        str | None,
        _run("Go on with the run in this folder; with more --epochs also with a finished one."),
    ] = None,
    checkpoint_minutes: Annotated[
        float | None, _run("Least time between two checkpoints within an epoch.", "10")
    ] = None,
) -> None:
    """Train a named model on a named data set.

    Shows how well and how deep it computes. What is not given has a default that fits the model
    and the data set.
    """
    given = {name: value for name, value in context.params.items() if value is not None}
    given = {name: value for name, value in given.items() if name not in ("output", "resume")}
    if checkpoint_minutes is not None and not checkpoint_minutes >= 0:
        raise UserError(f"--checkpoint-minutes must be 0 or more: {checkpoint_minutes}")
    often = {name: given.pop(name) for name in ("checkpoint_minutes",) if name in given}
    load_quietly()
    from . import session
    from .settings import make_settings

    console = make_console()
    if resume is None:
        session.start(make_settings(**given), output, console, **often)
        return
    epochs = given.pop("epochs", None)
    if given or output is not None:
        extra = next(iter(given), "output").replace("_", "-")
        raise UserError(
            f"--resume takes all settings but --epochs from its folder; leave out --{extra}"
        )
    session.resume(resume, console, epochs, **often)


def main() -> None:
    """Run the command line."""
    run_command(make_command_app(fit), "python -m training.fit")


if __name__ == "__main__":
    main()
