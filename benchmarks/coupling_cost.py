"""Cost of gradient coupling in a training step: `python -m benchmarks.coupling_cost`."""

from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import typer

from benchmarks.steps import CLASSES, fit_steps, random_batch
from benchmarks.timing import interleave, show_rates
from iterconv.command_help import make_command_app


def coupling(
    model: Annotated[str, typer.Option(help="Name of a resnet_w8 to resnet_w64.")] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Number of blocks in a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Number of images in a step.")] = 64,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    steps: Annotated[int, typer.Option(help="Number of steps in a round.")] = 2,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 25,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time the training steps of one model by `fit`, without and with coupling, in turn."""
    images, labels = random_batch(batch_size, side)
    candidates = {
        name: fit_steps(
            ki.create_model(model, images.shape[1:], CLASSES, blocks=blocks),
            images,
            labels,
            steps,
            **options,
        )
        for name, options in (("no coupling", {}), ("coupling 0.9", {"coupling": 0.9}))
    }
    for candidate in candidates.values():
        candidate()
    seconds = interleave(candidates, rounds)
    title = (
        f"Training steps of {model}, {blocks} blocks a stage, batch {batch_size}, {side}x{side}x3"
    )
    show_rates(title, seconds, steps * batch_size, "no coupling", output)


app = make_command_app(coupling)

if __name__ == "__main__":
    app()
