"""What the experiments on residual nets measure: error, indices, and their curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from .experiment import Case, Results
from .trainings import result_of, trained


def measure(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Train the net of a case, and return its errors and indices on the test part.

    Returns:
        `error` and `train_error`, shares; `parameters`; `indices`, the dict of an `IndexReport`,
        None for a case without indices.
    """
    result = result_of(trained(case, folder, console))
    return {
        "error": 1 - result["test_accuracy"],
        "train_error": 1 - result["train_accuracy"],
        "parameters": result["parameters"],
        "indices": result.get("indices"),
    }


def errors(results: Results, condition: str) -> dict[int, float]:
    """Return the test error of a condition by seed."""
    return results.by_seed(condition, "error")


def index_means(results: Results, condition: str, index: str) -> dict[int, float]:
    """Return an index of a condition by seed: its mean over the stages that have one."""
    return results.by_seed(condition, "indices", "mean", index)


def slopes(
    results: Results,
    conditions: list[str],
    positions: list[float],
    measured: Callable[[Results, str], dict[int, float]],
) -> np.ndarray:
    """Return, for each seed, the slope of a measure over the positions of some conditions.

    A slope is that of the least-squares line. A seed without a value in one condition has none.
    """
    by_condition = [measured(results, condition) for condition in conditions]
    seeds = sorted(set.intersection(*(set(values) for values in by_condition)))
    return np.array(
        [np.polyfit(positions, [values[seed] for values in by_condition], 1)[0] for seed in seeds]
    )
