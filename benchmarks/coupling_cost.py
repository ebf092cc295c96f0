"""Cost of gradient coupling in a training step: `python -m benchmarks.coupling_cost`."""

from typing import Annotated

import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.rates import show_rates
from benchmarks.random_batches import random_batch
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app

PLAIN = "no coupling"
OPTIONS = {PLAIN: {}, "coupling 0.9": {"coupling": 0.9}}


def coupling(
    model: Annotated[str, typer.Option(help="Name of a resnet_w8 to resnet_w64.")] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Number of blocks in a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Number of images in a step.")] = 64,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    steps: Annotated[int, typer.Option(help="Number of steps in a round.")] = 2,
    rounds: RoundsOption = 25,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time the training steps of one model by `fit`, without and with coupling, in turn."""
    images, labels = random_batch(batch_size, side)
    net = {"name": model, "overrides": {"blocks": blocks}}
    batch = {"images": images, "labels": labels, "steps": steps}
    candidates = {
        name: Candidate("benchmarks.steps:KerasSteps", {**net, **batch, "options": options})
        for name, options in OPTIONS.items()
    }
    with Bench(device) as bench:
        measured = bench.measure(candidates, rounds)
    title = (
        f"Training steps of {model}, {blocks} blocks a stage, batch {batch_size}, {side}x{side}x3"
    )
    show_rates(title, measured, steps * batch_size, [PLAIN], output)


app = make_command_app(coupling)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.coupling_cost")
