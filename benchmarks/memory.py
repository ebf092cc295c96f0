"""Peak memory of training, each in a new process: `python -m benchmarks.memory`."""

from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import OutputOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from benchmarks.random_batches import random_batch
from benchmarks.steps import TARGET, torch_twin
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app

PYTORCH = "PyTorch"
# The second group keeps no states: its peak should not depend on the number of updates.
KEEPING = (PYTORCH, "unroll")
CONSTANT = [mode.name for mode in ki.unrolling.MODES.values() if not mode.keeps_tensors]
STOCK = "stock Keras layers"
FILTERS = (16, 32, 64)
MB = 1e6


def memory(
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
    output: OutputOption = None,
) -> None:
    """Measure the peak resident memory of training nais10, less that of the idle process.

    The process is idle after all imports and before the model is built. The peak covers building,
    tracing and training. Candidates that keep a state for each update are run only with the fewest
    updates unless --all is given: with 50 updates, 54 blocks need tens of GB. "implicit" needs
    tanh; the others use ReLU.
    """
    updates = sorted(updates or [10, 50])
    names = [*KEEPING, *CONSTANT, *([STOCK] if everything else [])]
    peaks: dict[str, dict[int, float]] = {name: {} for name in names}
    for name in names:
        for count in updates if everything or name in CONSTANT else updates[:1]:
            peaks[name][count] = _measure_peak(name, count, blocks, batch_size, side, steps)
    # The first stage's states are the largest.
    state = 4 * batch_size * side**2 * FILTERS[0]
    further = state * (updates[-1] - updates[0])
    header = ["candidate"]
    header += [f"{count} updates, MB" for count in updates]
    header += ["ratio to PyTorch", "growth, MB"]
    few = updates[0]
    lines, rows = [], {}
    for name, peak in peaks.items():
        share = peak[few] / peaks[PYTORCH][few]
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
        f"{side}x{side}x3"
    )
    facts = {"updates": updates, "further_states_bytes": further}
    show(title, header, lines, {**facts, "candidates": rows}, output)
    print(f"{updates[-1] - few} more states of one block of the first stage: {further / MB:.0f} MB")


def _measure_peak(
    name: str, updates: int, blocks: int, batch_size: int, side: int, steps: int
) -> int:
    """Return the peak memory of training one candidate, over its idle process, in bytes."""
    images, labels = random_batch(batch_size, side)
    overrides = {
        "filters": FILTERS,
        "blocks": blocks,
        "max_unroll": updates,
        "activation": "tanh" if name == "implicit" else "relu",
        "gradient": name if name in CONSTANT else "unroll",
    }
    batch = {"images": images, "labels": labels, "steps": steps}
    net = {"name": "nais10", "overrides": overrides, "twin": "stock" if name == STOCK else ""}
    measured = Candidate(TARGET, {**batch, **net})
    if name == PYTORCH:
        with Bench("cpu") as bench:
            measured = torch_twin(bench, measured)
    # Its process is new.
    with Bench("cpu") as bench:
        given = {"target": measured.target, "arguments": measured.arguments}
        candidate = Candidate("benchmarks.peak_memory:PeakMemory", given)
        return bench.ask(candidate, "peak_over_idle")


app = make_command_app(memory)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.memory")
