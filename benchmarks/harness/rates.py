"""The table of rates of images, for benchmarks whose candidates all do the same work."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.measured import Measured
from benchmarks.harness.measured_tables import show


def show_rates(
    title: str,
    measured: Measured,
    images: int,
    baselines: Sequence[str],
    output: str | None,
    flops: Mapping[str, float] | None = None,
    **facts: Any,
) -> None:
    """Print rates, ranges and ratios, and write them as JSON if a file is given.

    Args:
        title: The title of the table.
        measured: The times.
        images: Number of images in each run.
        baselines: The candidates with which the others are compared, a column each.
        output: The JSON file, or None.
        flops: Number of operations of each candidate for one image. If given, the table also has
            the rate of operations, and its share of that of the control, a matrix product.
        **facts: Further content of the JSON file.
    """
    header = ["candidate", "images/s, median", "min to max"]
    for baseline in baselines:
        header += [f"ratio to {baseline}", "95% interval"]
    ceiling = measured.control_rate()
    if flops is not None:
        header += ["GFLOP/s", f"of a matrix product's {ceiling / 1e9:.0f}"]
    lines, rows = [], {}
    for name, runs in measured.seconds.items():
        rates = images / np.array(runs)
        median = float(np.median(rates))
        ratios = {baseline: measured.speedup(baseline, name) for baseline in baselines}
        rows[name] = {
            "images_per_second": rates.tolist(),
            "ratios": {baseline: ratio._asdict() for baseline, ratio in ratios.items()},
        }
        line = [name, f"{median:.1f}", f"{rates.min():.1f} to {rates.max():.1f}"]
        for ratio in ratios.values():
            line += [f"{ratio.median:.3f}", ratio.interval]
        if flops is not None:
            achieved = flops[name] * median
            rows[name]["flops_per_image"] = flops[name]
            rows[name]["share_of_matrix_product"] = achieved / ceiling
            line += [f"{achieved / 1e9:.1f}", f"{achieved / ceiling:.0%}"]
        lines.append(line)
    content = {"candidates": rows, "rounds": measured.rounds_facts(), **facts}
    show(title, header, lines, content, output)
