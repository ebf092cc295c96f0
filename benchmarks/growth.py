"""Time of a training step against four sizes: `python -m benchmarks.growth`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import typer

from iterconv.command_help import make_command_app

from . import nais_nets
from .growth_plot import plot_growth
from .steps import CLASSES, bare_steps, random_batch, torch_steps
from .timing import describe_machine, interleave

# Those of blocks with ReLU.
GRADIENTS = [mode.name for mode in ki.unrolling.MODES.values() if "two_sided" not in mode.needs]


class Point(NamedTuple):
    """The sizes of a training step.

    Attributes:
        updates: Number of updates of a block.
        width: Number of channels of the state.
        batch: Number of images.
        image: Height and width of an image, in pixels.
    """

    updates: int = 10
    width: int = 16
    batch: int = 32
    image: int = 32


PANELS = {
    "updates": (1, 2, 5, 10, 20, 50),
    "width": (8, 16, 32, 64),
    "batch": (2, 8, 32, 128),
    "image": (8, 16, 32, 64),
}


def growth(
    blocks: Annotated[int, typer.Option(help="Number of blocks in the chain.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Images in a step, except in panel batch.")] = 32,
    image: Annotated[
        int, typer.Option(help="Height and width in pixels, except in panel image.")
    ] = 32,
    steps: Annotated[int, typer.Option(help="Number of steps in a round.")] = 2,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 5,
    panels: Annotated[
        list[str] | None,
        typer.Option(
            "--panel",
            help="Size to vary, repeatable: updates, width, batch or image.",
            show_default="all",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option(help="Folder for growth.json and growth.png.")
    ] = "runs/growth",
) -> None:
    """Time a training step of a small NAIS-Net here and in PyTorch, at growing sizes."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    base = Point(batch=batch_size, image=image)
    measured: dict = {}
    seconds: dict[str, dict] = {}
    for panel in panels or PANELS:
        seconds[panel] = {}
        for size in PANELS[panel]:
            point = base._replace(**{panel: size})
            if point not in measured:
                measured[point] = _measure(point, blocks, steps, rounds)
                medians = {
                    name: sorted(runs)[rounds // 2] for name, runs in measured[point].items()
                }
                print(point, {name: f"{1e3 * median:.1f} ms" for name, median in medians.items()})
            for name, runs in measured[point].items():
                seconds[panel].setdefault(name, {})[size] = runs
    content = {
        "title": f"Seconds of a training step of a NAIS-Net of {blocks} blocks",
        "machine": describe_machine(),
        "base": base._asdict(),
        "blocks": blocks,
        "seconds": seconds,
    }
    (folder / "growth.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot_growth(content, folder / "growth.png")
    print(f"growth.json and growth.png are in {os.fspath(folder)}")


def _measure(point: Point, blocks: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of one step by candidate, a list over the rounds."""
    # Otherwise the graphs of earlier points would fill the memory.
    keras.backend.clear_session()
    images, labels = random_batch(point.batch, point.image)

    def build(gradient):
        return ki.create_model(
            "nais10",
            images.shape[1:],
            CLASSES,
            filters=(point.width,),
            blocks=blocks,
            max_unroll=point.updates,
            gradient=gradient,
        )

    candidates: dict[str, Callable[[], float | None]] = {
        f"ours, {gradient}": bare_steps(build(gradient), images, labels, steps)
        for gradient in GRADIENTS
    }
    twin = nais_nets.torch_twin(build("unroll"))
    candidates["PyTorch, eager"] = torch_steps(twin, images, labels, steps)
    for candidate in candidates.values():
        candidate()
    runs = interleave(candidates, rounds)
    return {name: [value / steps for value in values] for name, values in runs.items()}


app = make_command_app(growth)

if __name__ == "__main__":
    app()
