"""Interleaved timing, and what a table of it says."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

MATRIX = 2048


def interleave(
    candidates: dict[str, Callable[[], float | None]], rounds: int
) -> dict[str, list[float]]:
    """Time each candidate once a round, in turn, so that all see the same moods of the machine.

    Args:
        candidates: Functions of no arguments, already warm. One that returns a number has taken
            the time itself, in seconds.
        rounds: How often each is run.

    Returns:
        Seconds, a list for each candidate.
    """
    seconds = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        # Another order each time: whoever follows a hot candidate would always suffer.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begin = time.perf_counter()
            own = candidates[name]()
            seconds[name].append(time.perf_counter() - begin if own is None else own)
    return seconds


def matrix_rate(repeats: int = 5) -> float:
    """Return the machine's rate on a large float32 matrix product in TensorFlow, in FLOP/s."""
    import tensorflow as tf

    a = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    product()
    runs = interleave({"product": lambda: product().numpy() and None}, repeats)
    best = min(runs["product"])
    return 2 * MATRIX**3 / best


def describe_machine() -> str:
    """Return the processor and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def show(
    title: str, seconds: dict[str, list[float]], images: int, baseline: str, output: str | None
) -> None:
    """Print medians, spreads and ratios, and write them as JSON where a file is named.

    Args:
        title: The table's.
        seconds: From `interleave`.
        images: Images that each run trained on or answered for.
        baseline: The candidate that the others are compared with.
        output: The JSON file, or None.
    """
    table = Table(title=f"{title}; {describe_machine()}", title_justify="left")
    for column in ("candidate", "images/s, median", "least to most", f"ratio to {baseline}"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    rows = {}
    for name, runs in seconds.items():
        rates = images / np.array(runs)
        # Round by round: two candidates of one round saw the same machine.
        ratio = float(np.median(np.array(seconds[baseline]) / np.array(runs)))
        rows[name] = {"images_per_second": rates.tolist(), "ratio": ratio}
        table.add_row(
            name,
            f"{np.median(rates):.1f}",
            f"{rates.min():.1f} to {rates.max():.1f}",
            f"{ratio:.3f}",
        )
    Console(width=120).print(table, highlight=False)
    if output is not None:
        content = {"title": title, "machine": describe_machine(), "baseline": baseline, **rows}
        Path(output).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
