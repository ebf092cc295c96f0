"""The stability of NAIS blocks: measured trajectories against the bounds of NAIS-Net."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from keras_iterconv.zoo.index import find_zoo, read_index

from ..experiment import Case, Experiment, Results
from ..readouts import as_json
from ..stable_blocks import DRIVES, KINDS, Setting, draw_setting
from ..stable_jacobians import measure_jacobians, measure_oscillation
from ..stable_nets import measure_net
from ..stable_trajectories import (
    decay,
    follow,
    geometry_of,
    largest_expansion,
    limit_of,
    slope_floor,
    worst_share,
)
from .stability_claims import CLAIMS

UPDATES = 200
# Enough for all blocks with the strong drive, whose states are far from their steady states.
LONG = 5_000


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions by name; both scales are in full."""
    tied = {
        f"{kind}, {activation}, {drive} drive": {
            "measure": "tied", "kind": kind, "activation": activation, "drive": drive,
        }
        for kind, activation, drive in product(KINDS, ("tanh", "relu"), DRIVES)
    }  # fmt: skip
    untied = {
        f"{kind}, untied": {"measure": "untied", "kind": kind, "activation": "tanh"}
        for kind in KINDS
    }
    jacobians = {
        f"{kind}, Jacobians": {"measure": "jacobians", "kind": kind, "activation": "tanh"}
        for kind in KINDS
    }
    oscillation = {
        f"delta {name}": {"measure": "oscillation", "relaxed": name == "relaxed"}
        for name in ("default", "relaxed")
    }
    nets = {
        f"zoo, {name}": {"measure": "net", "name": name}
        for name in sorted(read_index(find_zoo(None))["models"])
    }
    return {**tied, **untied, **jacobians, **oscillation, **nets}


def measure(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Return the measures of a condition; the functions below name them."""
    settings = dict(case.settings)
    kind = settings.pop("measure")
    if kind == "net":
        return measure_net(settings["name"])
    if kind == "oscillation":
        return measure_oscillation(settings["relaxed"])
    if kind == "jacobians":
        return measure_jacobians(draw_setting(**settings).block)
    if kind == "untied":
        return measure_untied(draw_setting(**settings, tied=False, updates=UPDATES))
    return measure_tied(draw_setting(**settings))


def measure_tied(setting: Setting) -> dict[str, Any]:
    """Return how the trajectories of a tied block keep to the bounds of Theorem 1.

    Returns:
        `floor`: the smallest slope on the states visited; `stated_rate`, for slopes of 1, and
        `proven_rate`, for that floor. `motion`, one more update after `LONG`, and
        `start_dependence`, the distance of the limits of two starts, as shares of the first
        distance. `expansion`: the largest factor by which an update changes the distance of two
        states. As shares of their bounds, stated and proven, by `Geometry`: `rate` (Theorem 1),
        `perturbed` (Eq. 10) and `invariant` (Eq. 11), both with the smallest slope on their own
        states as `..._floor`, and `practical` (Eq. 12). `closed_form`: for
        dense tanh blocks the relative error of -A^-1 (B u + b), and of A^-1 B u as printed.
        `curves`: distance and bounds of the first sample by update.
    """
    block, inputs, perturbation, start, other = setting
    geometry = geometry_of(block)
    limit, elsewhere = (limit_of(block, inputs, x, LONG) for x in (start, other))
    path = follow(block, inputs, start, UPDATES)
    floor = slope_floor(block, path)
    distance = geometry.norm(path - limit)
    motion = geometry.norm(block.update(limit, inputs).numpy() - limit)
    rates = {"stated": geometry.stated_rate, "proven": geometry.rate(floor)}
    bounds = {name: decay(rate, distance[0], UPDATES) for name, rate in rates.items()}
    beside = follow(block, inputs, other, UPDATES)
    return {
        "floor": as_json(floor),
        "stated_rate": as_json(rates["stated"]),
        "proven_rate": as_json(rates["proven"]),
        "motion": as_json((motion / distance[0]).max()),
        "start_dependence": as_json((geometry.norm(limit - elsewhere) / distance[0]).max()),
        "expansion": as_json(largest_expansion(block, path, beside)),
        "rate": {name: as_json(worst_share(distance, bound)) for name, bound in bounds.items()},
        **_perturbed(setting, limit, perturbation),
        "closed_form": _closed_form(block, inputs, limit),
        "curves": {
            "distance": as_json(distance[:, 0]),
            **{name: as_json(bound[:, 0]) for name, bound in bounds.items()},
        },
    }


def _perturbed(setting: Setting, limit: np.ndarray, w: np.ndarray) -> dict[str, Any]:
    """Return the shares of the bounds for perturbed inputs; None where the theorem has none."""
    block, inputs, _, start, _ = setting
    geometry = geometry_of(block)
    size = geometry.input_norm(w)

    def gain(rate: float) -> np.ndarray:
        return block.step_size * geometry.drive * size / (1 - rate) if rate < 1 else size + np.inf

    stated = gain(geometry.stated_rate)
    path = follow(block, inputs + w, start, UPDATES)
    distance = geometry.norm(path - limit)
    if not block.two_sided:
        bound = decay(geometry.stated_rate, distance[0], UPDATES) + stated + distance[0]
        return {
            **dict.fromkeys(("perturbed", "invariant", "perturbed_floor", "invariant_floor")),
            "practical": as_json(worst_share(distance, bound)),
        }
    # A start on the border of the set of Eq. 11.
    away = start - limit
    edge = limit + away * (stated / geometry.norm(away)).reshape(-1, *[1] * (away.ndim - 1))
    inside = follow(block, inputs + w, edge, UPDATES)
    floors = [slope_floor(block, states) for states in (path, inside)]
    rate, inner_rate = map(geometry.rate, floors)
    reach = geometry.norm(inside - limit)

    def shares(rate: float, inner_rate: float) -> tuple[float, float]:
        bound = decay(rate, distance[0], UPDATES) + gain(rate)
        return worst_share(distance, bound), worst_share(reach, gain(inner_rate) + 0 * reach)

    found = {
        "stated": shares(geometry.stated_rate, geometry.stated_rate),
        "proven": shares(rate, inner_rate),
    }
    return {
        "perturbed": {name: as_json(first) for name, (first, _) in found.items()},
        "invariant": {name: as_json(second) for name, (_, second) in found.items()},
        "perturbed_floor": as_json(floors[0]),
        "invariant_floor": as_json(floors[1]),
        "practical": None,
    }


def _closed_form(block: Any, inputs: np.ndarray, limit: np.ndarray) -> dict[str, Any] | None:
    """Return the relative errors of two formulas for the steady state of a dense tanh block."""
    if limit.ndim > 2 or not block.two_sided:
        return None
    A, B, b = block.state_matrix().numpy(), block.B.numpy(), block.b.numpy()
    right = -np.linalg.solve(A, (inputs @ B + b).T).T
    printed = np.linalg.solve(A, (inputs @ B).T).T
    size = np.linalg.norm(limit)
    return {
        "corrected": as_json(np.linalg.norm(limit - right) / size),
        "printed": as_json(np.linalg.norm(limit - printed) / size),
    }


def measure_untied(setting: Setting) -> dict[str, Any]:
    """Return how two trajectories of an untied block approach each other and settle.

    Returns:
        `expansion`: the largest factor by which an update changes their distance, each update in
        its own norm; `growth`: the largest factor from the first distance in the 2-norm; `motion`:
        the norm of the last update as a share of that of the first; `curves`: the norms of the
        updates of the first sample.
    """
    block, inputs, _, start, other = setting
    path, beside = (follow(block, inputs, x, UPDATES) for x in (start, other))
    flat = (path - beside).reshape(len(path), len(start), -1)
    distance = np.linalg.norm(flat, axis=-1)
    moves = np.linalg.norm(np.diff(path, axis=0).reshape(UPDATES, len(start), -1), axis=-1)
    return {
        "expansion": as_json(largest_expansion(block, path, beside)),
        "growth": as_json((distance / distance[0]).max()),
        "motion": as_json((moves[-1] / moves[0]).max()),
        "curves": {"motion": as_json(moves[:, 0])},
    }


def draw(path: Path, results: Results) -> None:
    """Draw distances with their bounds, the oscillation of a relaxed delta, and untied blocks."""
    from .stability_figure import draw_stability

    draw_stability(path, results)


STABILITY = Experiment(
    name="stability",
    title="NAIS blocks and the nets of the zoo: trajectories against bounds",
    source="NAIS-Net, Theorems 1 to 3, Lemma 1, Eq. 7 to 12",
    conditions=lambda scale: {},
    seeds={"cpu": 1, "paper": 1},
    compute=measure,
    claims=CLAIMS,
    draw=draw,
    reduced="Nothing: the weights of the blocks are drawn, and the nets are those of the zoo.",
    single=conditions,
)
