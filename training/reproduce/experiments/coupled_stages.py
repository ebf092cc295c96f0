"""Coupled residual nets: indices and error by strength of the coupling, and by width."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..coupled_nets import STRENGTHS, WIDTHS, name_of, series_of, settings_of
from ..experiment import Experiment, Results
from ..published_nets import measure_net
from .coupling_claims import CLAIMS

# In few steps Digitclutter-5 is not learned (1.2% after 3 epochs of 10,000 images), and a net at
# chance has no indices: hence two digits.
DATA = {
    "cpu": ("mnist", "digitclutter2"),
    "paper": ("cifar10", "digitclutter5", "mnist", "cifar100"),
}


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name."""
    return {
        name_of(dataset, width, strength): settings_of(scale, dataset, width, strength)
        for dataset in DATA[scale]
        for width in WIDTHS[scale]
        for strength in STRENGTHS
    }


def draw(path: Path, results: Results) -> None:
    """Draw the two indices and the error against the strength, a line for each width."""
    from .strength_figure import draw_strengths

    rows = {
        dataset: {f"{width} channels": names for width, names in series.items()}
        for dataset, series in series_of(results, STRENGTHS).items()
    }
    draw_strengths(path, results, rows, STRENGTHS)


COUPLED_STAGES = Experiment(
    name="coupling",
    title="Coupled residual nets: indices and error by strength and width",
    source="Lippl et al., Fig. 3 and S1 Fig.",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 6},
    compute=measure_net,
    claims=CLAIMS,
    draw=draw,
    reduced="Widths 2, 4 and 8 in place of 8 to 64; 10,000 training images of MNIST, and of "
    "Digitclutter with 2 digits in place of 5, which few steps do not learn; 6 epochs; indices on "
    "1,000 test images.",
)
