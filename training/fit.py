"""Train a named model on a data set or on own pictures: `python -m training.fit`."""

from typing import Annotated, Any

import typer

from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app, options_of
from iterconv.command_start import load_quietly, make_console

_data = options_of("Model and data")
_training = options_of("Training")
_depth = options_of("Depth of NAIS-Nets")
_residual = options_of("Residual nets")
_run = options_of("Run")
MODEL_DEFAULT = "the model's own"
# Written out, since the modes' own table loads TensorFlow; a test compares the two.
GRADIENT_HELP = (
    "Gradient mode. unroll: exact, keeps a tensor for each update. "
    "recompute: exact, keeps none. "
    "implicit: not exact, keeps none, needs a linear pre-activation, tied weights, tanh, no "
    "settling. frozen: not exact, keeps none, needs a linear pre-activation, no settling."
)


def fit(
    context: typer.Context,
    model: Annotated[
        str | None, _data("Name of the model, for example nais10 or nais_dense.")
    ] = None,
    dataset: Annotated[
        str | None,
        _data(
            "digits, mnist, cifar10, cifar100, digitclutter2 to digitclutter5, prefix_sums, or an "
            "image classification set of TensorFlow Datasets, for example fashion_mnist.",
            "digits; deep_thinking prefix_sums",
        ),
    ] = None,
    data: Annotated[
        str | None,
        _data("Folder of pictures with a folder for each class, in place of --dataset.", "none"),
    ] = None,
    image_size: Annotated[
        str | None,
        _data(
            "Size of the images with --data or a set of TensorFlow Datasets: SIDE or HEIGHTxWIDTH.",
            "the pictures' own, if one of at most 128 a side; else 64",
        ),
    ] = None,
    preset: Annotated[str | None, _data("Settings of a paper, for example nais-cifar10.")] = None,
    limit_train: Annotated[int | None, _data("Number of training images.", "all")] = None,
    validation_share: Annotated[
        float | None,
        _data("Share of the training images kept for validation; 0 for none.", "0.1"),
    ] = None,
    test_share: Annotated[
        float | None,
        _data("Share of the pictures for testing, where the data set has no test part.", "0.2"),
    ] = None,
    augment: Annotated[
        str | None,
        _data(
            "Augmentation of training images: none, standard, alternating or addons.",
            "standard for convolutional models on digits, CIFAR and other pictures, else none",
        ),
    ] = None,
    pixels: Annotated[
        str | None,
        _data("Scale of pixels: standardized, or unit (0 to 1).", "standardized"),
    ] = None,
    epochs: Annotated[
        int | None,
        _training("Number of passes over the training images.", "by model and data set"),
    ] = None,
    batch_size: Annotated[
        int | None,
        _training(
            "Number of images in a step.",
            "64; dense models 128; deep_thinking 200; less for few pictures",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _training("Largest learning rate.", "0.05; dense models 0.02; deep_thinking 0.001"),
    ] = None,
    schedule: Annotated[
        str | None,
        _training(
            "Learning rate over time: cosine, step, step-twice, triangle, constant or cyclical.",
            "cosine",
        ),
    ] = None,
    optimizer: Annotated[
        str | None, _training("sgd with momentum, or adam.", "for deep_thinking adam, else sgd")
    ] = None,
    momentum: Annotated[
        float | None, _training("Momentum of SGD; decay of Adam's mean gradient.", "0.9")
    ] = None,
    nesterov: Annotated[
        bool | None, _training("Use the momentum of Nesterov.", "", "--nesterov")
    ] = None,
    weight_decay: Annotated[
        float | None,
        _training("Decoupled decay of kernels in a step, per unit of learning rate.", "0"),
    ] = None,
    clip_norm: Annotated[
        float | None,
        _training(
            "Largest norm of the gradient over all weights; 0 for no limit.",
            "for deep_thinking 1, else 5",
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        _training("Share of a label's probability that is spread over all classes.", "0"),
    ] = None,
    mixed_precision: Annotated[
        bool | None,
        _training("Compute in float16 on a GPU, in bfloat16 on a CPU.", "", "--mixed-precision"),
    ] = None,
    strategy: Annotated[
        str | None,
        _training(
            "Replicas: none, mirrored (all GPUs; without a GPU two logical CPUs), or multiworker "
            "(several processes, as iterconv launch starts).",
            "none",
        ),
    ] = None,
    synchronized: Annotated[
        bool | None,
        _training(
            "Normalise by the statistics of the images of all replicas together.",
            "",
            "--synchronized",
        ),
    ] = None,
    seed: Annotated[
        int | None, _training("Seed of initial weights, image order and augmentation.", "0")
    ] = None,
    mirrored_test: Annotated[
        bool | None,
        _training(
            "Report also the test accuracy of images and their mirror images together.",
            "",
            "--mirrored-test",
        ),
    ] = None,
    max_unroll: Annotated[
        int | None,
        _depth(
            "Number of updates of a block; with a threshold, the largest number.", MODEL_DEFAULT
        ),
    ] = None,
    unroll_schedule: Annotated[
        str | None,
        _depth(
            "Number of updates of a block by epoch, EPOCH:UPDATES,... from epoch 0 on, for "
            "example 0:1,12:3,15:10.",
            "the same in all epochs",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        _depth(
            "Stopping threshold: the 2-norm of an update below which an image stops.", MODEL_DEFAULT
        ),
    ] = None,
    accuracy_loss: Annotated[
        float | None,
        _depth(
            "Set the stopping threshold after the training for the fewest updates that lose at "
            "most this share of the accuracy on validation images, for example 0.005.",
            "no calibration",
        ),
    ] = None,
    mean_updates: Annotated[
        float | None,
        _depth(
            "Set the stopping threshold after the training for at most this mean number of "
            "updates of an image on validation images, for example 40; on training images where "
            "there are none.",
            "no calibration",
        ),
    ] = None,
    step_size: Annotated[
        float | None, _depth("Step size h of an update, in (0, 1].", MODEL_DEFAULT)
    ] = None,
    activation: Annotated[
        str | None, _depth("Activation of an update: relu or tanh.", MODEL_DEFAULT)
    ] = None,
    gradient: Annotated[
        str | None,
        _depth(
            GRADIENT_HELP,
            MODEL_DEFAULT,
        ),
    ] = None,
    settling: Annotated[
        float | None,
        _depth(
            "Weight of the last update's squared norm, relative to the state's, in the loss.",
            MODEL_DEFAULT,
        ),
    ] = None,
    blocks: Annotated[
        int | None, _residual("Number of blocks of a stage, also in NAIS-Nets.", MODEL_DEFAULT)
    ] = None,
    width: Annotated[
        int | None, _residual("Number of channels of the first stage.", MODEL_DEFAULT)
    ] = None,
    initial_gamma: Annotated[
        float | None, _residual("Initial scale of normalisations in blocks.", MODEL_DEFAULT)
    ] = None,
    coupling: Annotated[
        float | None,
        _residual("Share of the stage's mean gradient in each block's gradient, 0 to 1.", "none"),
    ] = None,
    coupling_kernel: Annotated[
        str | None,
        _residual("Weights of the blocks in that mean: uniform or triangular.", "uniform"),
    ] = None,
    coupling_members: Annotated[
        str | None,
        _residual(
            "Coupled blocks, FIRST:LAST as a slice: 5: for all but five, -8: for eight.", "all"
        ),
    ] = None,
    lipschitz_cap: Annotated[
        float | None, _residual("Largest Lipschitz constant of a residual function.", MODEL_DEFAULT)
    ] = None,
    shared_initialization: Annotated[
        bool | None,
        _residual(
            "Initialize the blocks of a stage with equal or with independent weights.",
            "equal with --coupling, else independent",
            "--shared-initialization/--independent-initialization",
        ),
    ] = None,
    index_images: Annotated[
        int | None,
        _residual("Number of test images for the indices of the stages; 0 for no indices.", "all"),
    ] = None,
    output: Annotated[
        str | None, _run("Folder of the run, new or empty.", "runs/MODEL-DATASET-N")
    ] = None,
    resume: Annotated[
        str | None,
        _run("Folder of a run to continue; a finished run needs more --epochs."),
    ] = None,
    checkpoint_minutes: Annotated[
        float | None, _run("Least time between two checkpoints within an epoch, in minutes.", "10")
    ] = None,
) -> None:
    """Train a named model on a named data set, or on your own pictures.

    Writes the trained model, its accuracy and its depth into the run's folder. The defaults
    depend on the model and the data set.
    """
    given = {name: value for name, value in context.params.items() if value is not None}
    given = {name: value for name, value in given.items() if name not in ("output", "resume")}
    if checkpoint_minutes is not None and not checkpoint_minutes >= 0:
        raise UserError(f"--checkpoint-minutes must be at least 0: {checkpoint_minutes}")
    options: dict[str, Any] = {
        name: given.pop(name) for name in ("checkpoint_minutes",) if name in given
    }
    load_quietly()
    from keras_iterconv.datasets import CATALOGUE

    from . import session
    from .settings import make_settings

    console = make_console()
    if resume is None:
        settings = make_settings(**given)
        if "batch_size" not in given and preset is None and settings.dataset not in CATALOGUE:
            options["choose_batch"] = True
        session.start(settings, output, console, **options)
        return
    epochs = given.pop("epochs", None)
    if given or output is not None:
        extra = next(iter(given), "output").replace("_", "-")
        raise UserError(
            f"--resume takes all settings but --epochs from the run's folder; leave out --{extra}"
        )
    session.resume(resume, console, epochs, **options)


def main() -> None:
    """Run the command line."""
    run_command(make_command_app(fit), "python -m training.fit")


if __name__ == "__main__":
    main()
