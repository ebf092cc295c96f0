"""Peak memory of training, each in a new process: `python -m benchmarks.memory`."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import typer

from benchmarks.measured_tables import show
from iterconv.command_help import CommandGroup

from . import nais_nets
from .steps import CLASSES, fit_steps, random_batch, torch_steps
from .timing import describe_machine

app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# The second group keeps no states: its peak should not depend on the number of updates.
KEEPING = ("PyTorch", "unroll")
CONSTANT = [mode.name for mode in ki.unrolling.MODES.values() if not mode.keeps_tensors]
STOCK = "stock Keras layers"
FILTERS = (16, 32, 64)
MB = 1e6


@app.callback(invoke_without_command=True)
def memory(
    context: typer.Context,
    updates: Annotated[
        list[int] | None,
        typer.Option(help="Number of updates of a block, repeatable.", show_default="10 and 50"),
    ] = None,
    blocks: Annotated[int, typer.Option(help="Number of blocks in a stage.")] = 18,
    batch_size: Annotated[int, typer.Option(help="Number of images in a step.")] = 64,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 32,
    steps: Annotated[int, typer.Option(help="Number of training steps in each process.")] = 3,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Add stock layers, and run all at each number of updates."),
    ] = False,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure the peak resident memory of training nais10, less that of the idle process.

    The process is idle after all imports and before the model is built; for PyTorch, after the
    Keras model is built whose weights it copies. The peak covers building, tracing and training.
    Candidates that keep a state for each update are run only with the fewest updates unless --all
    is given: with 50 updates, 54 blocks need tens of GB. "implicit" needs tanh; the others use
    ReLU.
    """
    if context.invoked_subcommand is not None:
        return
    updates = sorted(updates or [10, 50])
    names = [*KEEPING, *CONSTANT, *([STOCK] if everything else [])]
    peaks: dict[str, dict[int, float]] = {name: {} for name in names}
    for name in names:
        for count in updates if everything or name in CONSTANT else updates[:1]:
            peaks[name][count] = _run_fresh(name, count, blocks, batch_size, side, steps)
    # The first stage's states are the largest.
    state = 4 * batch_size * side**2 * FILTERS[0]
    further = state * (updates[-1] - updates[0])
    header = ["candidate"]
    header += [f"{count} updates, MB" for count in updates]
    header += ["ratio to PyTorch", "growth, MB"]
    few = updates[0]
    lines, rows = [], {}
    for name, peak in peaks.items():
        share = peak[few] / peaks["PyTorch"][few]
        growth = peak[updates[-1]] - peak[few] if updates[-1] in peak else None
        rows[name] = {
            "peak_over_idle_bytes": peak,
            "share_of_pytorch": share,
            "growth_bytes": growth,
        }
        lines.append(
            [
                name,
                *(f"{peak[count] / MB:.0f}" if count in peak else "-" for count in updates),
                f"{share:.3f}",
                "-" if growth is None else f"{growth / MB:.0f}",
            ]
        )
    title = (
        f"Peak memory over idle, training nais10 of {blocks} blocks a stage, batch {batch_size}, "
        f"{side}x{side}x3; {describe_machine()}"
    )
    facts = {"machine": describe_machine(), "updates": updates, "further_states_bytes": further}
    show(title, header, lines, {**facts, **rows}, output)
    print(f"{updates[-1] - few} more states of one block of the first stage: {further / MB:.0f} MB")


def _run_fresh(name: str, *settings: int) -> int:
    """Train one candidate in a new process, and return its peak over idle in bytes."""
    command = [sys.executable, "-m", "benchmarks.memory", "one", name, *map(str, settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[1:])} failed with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])["peak_over_idle"]


@app.command(hidden=True)
def one(name: str, updates: int, blocks: int, batch_size: int, side: int, steps: int) -> None:
    """Train one candidate, and print the peak memory of this process over its idle state."""
    images, labels = random_batch(batch_size, side)
    activation = "tanh" if name == "implicit" else "relu"
    gradient = name if name in CONSTANT else "unroll"

    def build():
        return ki.create_model(
            "nais10",
            images.shape[1:],
            CLASSES,
            filters=FILTERS,
            blocks=blocks,
            max_unroll=updates,
            activation=activation,
            gradient=gradient,
        )

    run: Callable[[], Any]
    if name == "PyTorch":
        from . import torch_layers  # noqa: F401  # an import is no part of the peak

        model = build()
        idle = _start_peak()
        twin = nais_nets.torch_twin(model)
        del model
        run = torch_steps(twin, images, labels, steps)
    else:
        idle = _start_peak()
        model = build()
        if name == STOCK:
            model = nais_nets.stock_twin(model)
        run = fit_steps(model, images, labels, steps)
    run()
    print(json.dumps({"idle": idle, "peak_over_idle": _read_memory("VmHWM") - idle}))


def _start_peak() -> int:
    """Reset the process's peak memory, and return its current resident memory in bytes."""
    gc.collect()
    # The imports may have had a higher peak. Without permission for the reset they are included.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the peak includes the imports: {error}", file=sys.stderr)
    return _read_memory("VmRSS")


def _read_memory(field: str) -> int:
    """Return the value of a line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    app()
