"""Interleaved timing, the machine's rate on a matrix product, and the table of both."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.measured_tables import show

MATRIX = 2048


def interleave(
    candidates: Mapping[str, Callable[[], float | None]], rounds: int
) -> dict[str, list[float]]:
    """Time each candidate once in each round, in turn.

    Throughput varies by tens of percent within minutes; taking turns, all candidates share it.


    Args:
        candidates: Functions without arguments, already traced. A returned number is used as the
            time in seconds.
        rounds: Number of rounds.

    Returns:
        Seconds, a list for each candidate.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        # The order rotates: a candidate that always followed a heavy one would be slower.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begin = time.perf_counter()
            measured = candidates[name]()
            seconds[name].append(time.perf_counter() - begin if measured is None else measured)
    return seconds


def speedup(baseline: list[float], seconds: list[float]) -> float:
    """Return the speed-up of the second over the first: the median of the ratios in each round.

    Ratios are taken within a round, since throughput varies less within a round.
    """
    return float(np.median(np.array(baseline) / np.array(seconds)))


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
    """Return the processor's name and the number of cores that this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def show_rates(
    title: str,
    seconds: dict[str, list[float]],
    images: int,
    baseline: str,
    output: str | None,
    flops: Mapping[str, float] | None = None,
    **facts: Any,
) -> None:
    """Print rates, ranges and ratios, and write them as JSON if a file is given.

    Args:
        title: The title of the table.
        seconds: The result of `interleave`.
        images: Number of images in each run.
        baseline: The candidate with which the others are compared.
        output: The JSON file, or None.
        flops: Number of operations of each candidate for one image. If given, the table also has
            the rate of operations, and its share of the machine's rate on a matrix product.
        **facts: Further content of the JSON file.
    """
    header = ["candidate", "images/s, median", "min to max", f"ratio to {baseline}"]
    if flops is not None:
        facts["matrix_product_flops_per_second"] = ceiling = matrix_rate()
        header += ["GFLOP/s", f"share of {ceiling / 1e9:.0f}"]
    lines, rows = [], {}
    for name, runs in seconds.items():
        rates = images / np.array(runs)
        ratio = speedup(seconds[baseline], runs)
        rows[name] = {"images_per_second": rates.tolist(), "ratio": ratio}
        lines.append(
            [
                name,
                f"{np.median(rates):.1f}",
                f"{rates.min():.1f} to {rates.max():.1f}",
                f"{ratio:.3f}",
            ]
        )
        if flops is not None:
            achieved = flops[name] * float(np.median(rates))
            rows[name]["flops_per_image"] = flops[name]
            rows[name]["share_of_matrix_product"] = achieved / ceiling
            lines[-1] += [f"{achieved / 1e9:.1f}", f"{achieved / ceiling:.1%}"]
    content = {"machine": describe_machine(), "baseline": baseline, **facts, **rows}
    show(f"{title}; {describe_machine()}", header, lines, content, output)
