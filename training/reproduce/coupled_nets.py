"""The residual nets of Lippl et al.: their settings at each scale, and the names of conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

from .experiment import Results

# The strengths of the coupling; None for independent initial weights and no coupling.
STRENGTHS = (None, 0.0, 0.5, 0.9, 1.0)
# Those from a shared start.
COUPLED = (0.0, 0.5, 0.9, 1.0)
# Coupled from a shared start, and not tied: the trend of the indices is claimed for these.
TREND = (0.0, 0.5, 0.9)
# Number of channels of the first stage.
WIDTHS = {"cpu": (2, 4, 8), "paper": (8, 16, 32, 64)}
_CPU = {"limit_train": 10_000, "epochs": 6, "index_images": 1000}
# Digitclutter with 2 digits, 10,000 images: 24% after two epochs of smaller batches (4 channels),
# where batches of 64 gave 6% (2 channels); chance is 2.2%.
_CPU_CLUTTER = {"batch_size": 32}
_PAPER = {
    "epochs": 200,
    "batch_size": 128,
    "learning_rate": 0.1,
    "schedule": "step-twice",
    "weight_decay": 1e-3,
}


def settings_of(
    scale: str,
    dataset: str,
    width: int,
    strength: float | None,
    model: str = "resnet_w8",
    **changed: Any,
) -> dict[str, Any]:
    """Return the settings of a net, which are the same in all experiments that train it.

    Args:
        scale: `"cpu"` or `"paper"`.
        dataset: A name of `keras_iterconv.datasets.list_datasets()`.
        width: Number of channels of the first stage.
        strength: The strength of the coupling, one of `STRENGTHS`.
        model: The architecture.
        **changed: Settings of `training.fit` that differ from those of the scale.
    """
    settings: dict[str, Any]
    if scale == "paper":
        settings = {**_PAPER, "augment": "standard" if dataset.startswith("cifar") else "none"}
    else:
        settings = {**_CPU, **(_CPU_CLUTTER if dataset.startswith("digitclutter") else {})}
    chosen = {"model": model, "width": width, "dataset": dataset, "coupling": strength}
    return {**chosen, **settings, **changed}


def name_of(group: str, width: int, strength: float | None) -> str:
    """Return the name of a condition.

    Args:
        group: What the experiment compares beside width and strength, such as the data set.
        width: Number of channels of the first stage.
        strength: The strength of the coupling, one of `STRENGTHS`.
    """
    kind = "independent" if strength is None else f"coupling {strength:g}"
    return f"{group}, width {width}, {kind}"


def widths_of(results: Results) -> dict[str, list[int]]:
    """Return the widths of each group in the results; other conditions are left out."""
    found: dict[str, set[int]] = {}
    for condition in results.conditions:
        group, mark, rest = condition.rpartition(", width ")
        if mark:
            found.setdefault(group, set()).add(int(rest.split(",")[0]))
    return {group: sorted(widths) for group, widths in found.items()}


def series_of(
    results: Results, strengths: Sequence[float | None]
) -> Mapping[str, Mapping[int, list[str]]]:
    """Return the conditions by strength, for each group and width in the results."""
    return {
        group: {
            width: [name_of(group, width, strength) for strength in strengths] for width in widths
        }
        for group, widths in widths_of(results).items()
    }
