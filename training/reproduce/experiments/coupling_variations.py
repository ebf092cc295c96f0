"""Variations of the coupling: its effect on indices and error under each."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..coupled_nets import STRENGTHS, TREND, WIDTHS, name_of, series_of, settings_of
from ..experiment import Claim, Experiment, Results, Verdict
from ..published_nets import measure_net
from ..residual_claims import Measured, judge_slopes
from ..residual_measures import errors, index_means

PLAIN = "plain"
VARIATIONS: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {},
    "initial gamma 0.1": {"initial_gamma": 0.1},
    "triangular kernel": {"coupling_kernel": "triangular"},
    "first five uncoupled": {"coupling_members": "5:"},
    "last eight coupled": {"coupling_members": "-8:"},
}
# At the scale cpu the plain nets are those of `coupling`.
SIZES = {"cpu": ("mnist", (4,), TREND), "paper": ("cifar10", WIDTHS["paper"], STRENGTHS)}


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name."""
    dataset, widths, strengths = SIZES[scale]
    return {
        name_of(variation, width, strength): settings_of(
            scale, dataset, width, strength, **_changed(variation, strength)
        )
        for width in widths
        for variation in VARIATIONS
        for strength in strengths
    }


def _changed(variation: str, strength: float | None) -> Mapping[str, Any]:
    """Return the settings of a variation: without coupling, those of the plain net if they agree.

    A kernel and a choice of blocks change nothing at strength 0.
    """
    changed = VARIATIONS[variation]
    return changed if strength or "initial_gamma" in changed else {}


def _judge_slope(results: Results, measured: Measured, **rule: Any) -> Verdict:
    """Judge a slope over the strengths 0, 0.5 and 0.9 under each variation on its own."""
    groups = {
        variation: [*rows.values()]
        for variation, rows in series_of(results, TREND).items()
        if variation != PLAIN
    }
    return judge_slopes(results, groups, TREND, measured, **rule)


def _index(index: str) -> Measured:
    return partial(index_means, index=index)


CLAIMS = (
    Claim(
        "Coupling raises the convergence index under every variation.",
        "Lippl et al., S5 Fig.",
        "The slope of the index over the strengths 0, 0.5 and 0.9, one for each seed, is positive: "
        "its 95% interval lies above 0, under each variation.",
        partial(
            _judge_slope,
            measured=_index("convergence"),
            expected=1,
            text="slope of the convergence index",
        ),
    ),
    Claim(
        "Coupling lowers the divergence index under every variation.",
        "Lippl et al., S5 Fig.",
        "The slope of the index over the strengths 0, 0.5 and 0.9, one for each seed, is negative: "
        "its 95% interval lies below 0, under each variation.",
        partial(
            _judge_slope,
            measured=_index("divergence"),
            expected=-1,
            text="slope of the divergence index",
        ),
    ),
    Claim(
        "A stronger coupling leads to a higher error under every variation.",
        "Lippl et al., S4 Fig.",
        "The slope of the test error over the strengths 0, 0.5 and 0.9, one for each seed, is "
        "positive: its 95% interval lies above 0, under each variation.",
        partial(
            _judge_slope,
            measured=errors,
            expected=1,
            text="error per unit of coupling",
            form=".2%",
        ),
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the indices and the error against the strength, a line for each variation."""
    from .strength_figure import draw_strengths

    scale = "paper" if any("independent" in name for name in results.conditions) else "cpu"
    strengths = SIZES[scale][2]
    series = series_of(results, strengths)
    widths = sorted({width for rows in series.values() for width in rows})
    rows = {
        f"{width} channels": {variation: names[width] for variation, names in series.items()}
        for width in widths
    }
    draw_strengths(path, results, rows, strengths)


COUPLING_VARIATIONS = Experiment(
    name="variations",
    title="Variations of the coupling: initial gamma, kernel, coupled blocks",
    source="Lippl et al., S4 and S5 Fig.",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 6},
    compute=measure_net,
    claims=CLAIMS,
    draw=draw,
    reduced="4 channels in place of 8 to 64; strengths 0, 0.5 and 0.9; 10,000 training images of "
    "MNIST in place of CIFAR-10; 6 epochs; indices on 1,000 test images.",
)
