"""Seconds to the first finished training step of a command: `python -m benchmarks.first_step`."""

from typing import Annotated

import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app


def first_step(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Name of a model, repeatable.", show_default="nais10"),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Data set of the training.")] = "digits",
    options: Annotated[
        str, typer.Option(help="Further options of training.fit, in one text.")
    ] = "",
    rounds: RoundsOption = 3,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time `python -m training.fit` from its start to the end of its first training step.

    Each run is a new process, which ends there. The first run of each model is not counted: it
    reads the files of all packages into memory.
    """
    candidates = {
        model: Candidate(
            "benchmarks.first_step_candidate:FirstStep",
            {"options": ["--model", model, "--dataset", dataset, *options.split()]},
        )
        for model in models or ["nais10"]
    }
    with Bench(device) as bench:
        measured = bench.measure(candidates, rounds)
    lines: list[list[str]] = []
    for name, seconds in measured.seconds.items():
        spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
        lines.append([name, f"{measured.median(name):.1f}", spread])
    title = f"From the start of training.fit on {dataset} to the end of its first step"
    header = ["model", "seconds, median", "min to max"]
    show(title, header, lines, {"options": options, **measured.facts()}, output)


app = make_command_app(first_step)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.first_step")
