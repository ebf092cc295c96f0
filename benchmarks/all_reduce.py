"""The time of an all-reduce over workers of this machine: `python -m benchmarks.all_reduce`.

The workers share the machine's cores and its memory, so that this is the cost of TensorFlow's
collectives without a network.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness.benchmark_options import OutputOption
from benchmarks.harness.measured_tables import show
from iterconv.command_errors import UserError, run_command
from iterconv.command_help import make_command_app

ROOT = Path(__file__).parents[1]
# Numbers of float32: a scalar, the statistics of a layer, and gradients of small and larger nets.
SIZES = (1, 1_000, 100_000, 1_000_000, 10_000_000)
SECONDS = 300


def all_reduce(
    workers: Annotated[int, typer.Option(help="Number of workers.", min=2)] = 2,
    rounds: Annotated[int, typer.Option(help="Number of timed sums of each size.", min=3)] = 30,
    numbers: Annotated[
        list[int] | None,
        typer.Option(
            help="Size of a tensor, repeatable.",
            min=1,
            show_default="1 to 10 million in five sizes",
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Time the sum of a tensor over the workers, within a compiled step as in training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seconds.json"
        code = (
            "import sys; from training.launch import run_workers; "
            f"sys.exit(run_workers(sys.argv[2:], {workers}))"
        )
        worker = [sys.executable, "-m", "benchmarks.all_reduce_worker", str(rounds), str(path)]
        worker += [str(size) for size in numbers or SIZES]
        done = subprocess.run(
            [sys.executable, "-c", code, "--", *worker],
            cwd=ROOT,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            raise UserError(f"the workers ended with exit status {done.returncode}")
        seconds = {int(size): times for size, times in json.loads(path.read_text()).items()}
    lines = []
    for size, times in seconds.items():
        low, median, high = np.percentile(times, [25, 50, 75])
        rate = "" if size < 1000 else f"{4 * size / median / 1e6:.0f}"
        lines.append(
            [f"{size:,}", f"{1e3 * median:.2f}", f"{1e3 * low:.2f}-{1e3 * high:.2f}", rate]
        )
    show(
        f"All-reduce over {workers} workers",
        ["float32 numbers", "ms, median", "quartiles", "MB/s"],
        lines,
        {"workers": workers, "seconds": seconds},
        output,
    )


app = make_command_app(all_reduce)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.all_reduce")
