"""What gradient coupling costs a training step: `python -m benchmarks.coupling`."""

from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import numpy as np
import typer

from .timing import interleave, show
from .train_step import CLASSES, IMAGE, keras_steps

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def coupling(
    model: Annotated[str, typer.Option(help="One of resnet_w8, 16, 32 and 64.")] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Blocks a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps a round.")] = 2,
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 25,
    output: Annotated[str | None, typer.Option(help="A JSON file to write.")] = None,
) -> None:
    """Time `fit` of one net without and with a coupling, side by side."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, *IMAGE)).astype(np.float32)
    labels = rng.integers(CLASSES, size=batch_size)
    candidates = {
        name: keras_steps(
            ki.create_model(model, IMAGE, CLASSES, blocks=blocks), images, labels, steps, **options
        )
        for name, options in (("no coupling", {}), ("coupling 0.9", {"coupling": 0.9}))
    }
    for candidate in candidates.values():
        candidate()
    seconds = interleave(candidates, rounds)
    title = f"Training {model}, {blocks} blocks a stage, batch {batch_size}, 32x32x3"
    show(title, seconds, steps * batch_size, "no coupling", output)


if __name__ == "__main__":
    app()
