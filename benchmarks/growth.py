"""Time of a training step against four sizes: `python -m benchmarks.growth`."""

import json
import os
from pathlib import Path
from typing import Annotated, NamedTuple

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import typer

from benchmarks.growth_plot import plot_growth
from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.machine import describe_machine, machine_facts, now
from benchmarks.harness.measured import Measured
from benchmarks.random_batches import random_batch
from benchmarks.steps import TARGET, torch_twin
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app

# Those of blocks with ReLU.
GRADIENTS = [mode.name for mode in ki.unrolling.MODES.values() if "two_sided" not in mode.needs]
NAMES = [*(f"ours, {gradient}" for gradient in GRADIENTS), "PyTorch, eager"]


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
    rounds: RoundsOption = 5,
    panels: Annotated[
        list[str] | None,
        typer.Option(
            "--panel",
            help="Size to vary, repeatable: updates, width, batch or image.",
            show_default="all",
        ),
    ] = None,
    device: DeviceOption = Device.CPU,
    output: Annotated[
        str, typer.Option(help="Folder for growth.json and growth.png.")
    ] = "runs/growth",
) -> None:
    """Time a training step of a small NAIS-Net here and in PyTorch, at growing sizes."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    base = Point(batch=batch_size, image=image)
    measured: dict[Point, Measured] = {}
    seconds: dict[str, dict] = {}
    for panel in panels or PANELS:
        seconds[panel] = {}
        for size in PANELS[panel]:
            point = base._replace(**{panel: size})
            if point not in measured:
                measured[point] = found = _measure(point, blocks, steps, rounds, device)
                medians = {name: f"{1e3 * found.median(name) / steps:.1f} ms" for name in NAMES}
                print(point, medians)
            for name, runs in measured[point].seconds.items():
                seconds[panel].setdefault(name, {})[size] = [run / steps for run in runs]
    content = {
        "title": f"Seconds of a training step of a NAIS-Net of {blocks} blocks",
        "processor": describe_machine(),
        "machine": machine_facts(),
        "date": now(),
        "base": base._asdict(),
        "blocks": blocks,
        "seconds": seconds,
        "rounds": [
            {**point._asdict(), **found.rounds_facts()} for point, found in measured.items()
        ],
    }
    (folder / "growth.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot_growth(content, folder / "growth.png")
    print(f"growth.json and growth.png are in {os.fspath(folder)}")


def _measure(point: Point, blocks: int, steps: int, rounds: int, device: Device) -> Measured:
    """Return the times of all candidates, in processes without the graphs of earlier points."""
    images, labels = random_batch(point.batch, point.image)
    batch = {"images": images, "labels": labels, "steps": steps}
    sizes = {"filters": (point.width,), "blocks": blocks, "max_unroll": point.updates}
    candidates = {}
    for name, gradient in zip(NAMES, GRADIENTS, strict=False):
        overrides = {**sizes, "gradient": gradient}
        given = {"name": "nais10", "overrides": overrides, "bare": True}
        candidates[name] = Candidate(TARGET, {**batch, **given})
    with Bench(device) as bench:
        candidates[NAMES[-1]] = torch_twin(bench, next(iter(candidates.values())))
        return bench.measure(candidates, rounds)


app = make_command_app(growth)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.growth")
