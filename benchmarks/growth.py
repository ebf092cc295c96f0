"""Time of a training step against four sizes: `python -m benchmarks.growth`."""

from typing import Annotated, NamedTuple

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import typer

from benchmarks.growth_plot import plot_growth
from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.measured import Measured
from benchmarks.harness.measured_tables import show
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
    figure: Annotated[str | None, typer.Option(help="File of the figure.")] = None,
    output: OutputOption = None,
) -> None:
    """Time a training step of a small NAIS-Net here and in PyTorch, at growing sizes."""
    base = Point(batch=batch_size, image=image)
    measured: dict[Point, Measured] = {}
    seconds: dict[str, dict] = {}
    lines: list[list[str]] = []
    for panel in panels or PANELS:
        seconds[panel] = {}
        for size in PANELS[panel]:
            point = base._replace(**{panel: size})
            if point not in measured:
                measured[point] = _measure(point, blocks, steps, rounds, device)
            found = measured[point]
            times = (f"{1e3 * found.median(name) / steps:.1f}" for name in NAMES)
            ratio = found.speedup(NAMES[-1], NAMES[0])
            lines.append([panel, str(size), *times, f"{ratio.median:.2f}", ratio.interval])
            for name, runs in found.seconds.items():
                seconds[panel].setdefault(name, {})[size] = [run / steps for run in runs]
    title = f"Seconds of a training step of a NAIS-Net of {blocks} blocks"
    content = {
        "processor": describe_machine(),
        "base": base._asdict(),
        "seconds": seconds,
        "rounds": [
            {**point._asdict(), **found.rounds_facts()} for point, found in measured.items()
        ],
    }
    header = ["varied", "size", *(f"{name}, ms" for name in NAMES)]
    header += [f"{NAMES[0]} to {NAMES[-1]}", "95% interval"]
    show(title, header, lines, content, output)
    if figure is not None:
        plot_growth({"title": title, **content}, figure)


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
