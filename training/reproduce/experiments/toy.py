"""The toy inverse problem: whether trained networks compute by iteration."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from ..experiment import Case, Claim, Experiment, Results, Verdict
from ..inverse_problem import (
    LEFT_OUT,
    PICTURED_Z,
    Measurements,
    Readouts,
    chance_error,
    correct,
    disturb,
    forward_model,
    hand_built_net,
    measure_net,
    train_net,
)
from ..readouts import as_json
from ..verdicts import combine, judge_all, judge_not_worse, judge_share, judge_sign, paired, show

NAMES = {"feedforward": "feed-forward", "resnet": "ResNet", "recurrent": "recurrent"}
RESIDUAL = ("ResNet", "recurrent")
ALGORITHM = "algorithm"
NEAR_IDENTITY = 0.1
# Forward models and step sizes up to 1, for the claim that all such step sizes converge.
FACTORS, STEP_SIZES, UPDATES = (0.5, 1.5, 2.5, 4.0), (0.1, 0.4, 0.7, 1.0), 100


def near_identity(name: str) -> str:
    """Return the condition of a net whose residual blocks start near the identity."""
    return f"{name}, near the identity"


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all trained networks by name; both scales are in full."""
    found = {name: {"kind": kind, "update_scale": 1.0} for kind, name in NAMES.items()}
    for kind in ("resnet", "recurrent"):
        found[near_identity(NAMES[kind])] = {"kind": kind, "update_scale": NEAR_IDENTITY}
    return found


def measure(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Train a network, or build the algorithm, and return its readouts under three disturbances.

    Returns:
        `errors`: the mean distances from the true z over 1,000 test inputs; `paths`: the readouts
        for `PICTURED_Z`; each `early`, `left_out` and `repeated`, as in `Readouts`; `chance`: the
        error of the constant prediction 0; for the algorithm also `step_sizes`: for each factor and
        step size the share of the error that is left after 100 updates.
    """
    kind = case.settings["kind"]
    keras.backend.clear_session()
    if kind == ALGORITHM:
        net, more = hand_built_net(), {"step_sizes": _remaining_errors()}
    else:
        net = train_net(kind, case.seed, update_scale=case.settings["update_scale"])
        more = {}
    parts = {
        "errors": measure_net(net),
        "paths": disturb(net, forward_model(np.array(PICTURED_Z, "float32"))),
    }
    return {
        **{
            part: {name: as_json(values) for name, values in vars(readouts).items()}
            for part, readouts in parts.items()
        },
        "chance": as_json(chance_error()),
        **more,
    }


def _remaining_errors() -> list[list[float]]:
    """Return `[factor, step size, share of the error after 100 updates]` for all pairs."""
    found = []
    for factor, size in product(FACTORS, STEP_SIZES):
        z = np.zeros(1)
        for _ in range(UPDATES):
            z = correct(z, np.full(1, factor), (factor,), (size,))
        # The true z is 1, and the first estimate 0.
        found.append([factor, size, as_json(abs(z[0] - 1))])
    return found


def _errors(results: Results, name: str, part: str) -> np.ndarray:
    """Return mean errors of a condition, a first axis for the seeds; overflows are infinite."""
    rows = [row.measures["errors"][part] for row in results.rows if row.condition == name]
    return np.nan_to_num(np.array(rows, float), nan=np.inf)


def _chance(results: Results) -> float:
    return results.rows[0].measures["chance"] if results.rows else float("nan")


def _judge_algorithm(results: Results) -> Verdict:
    errors = _errors(results, ALGORITHM, "repeated")
    held = [bool(e[-1] < 1e-5 and np.all(np.diff(e) < 0)) for e in errors]
    text = ", ".join(f"error {e[0]:.2g} after 8 updates, {e[-1]:.2g} after 24" for e in errors)
    return judge_all(held, text)


def _judge_step_sizes(results: Results) -> Verdict:
    rows = [row for row in results.rows if row.condition == ALGORITHM]
    cases = [case for row in rows for case in row.measures["step_sizes"]]
    grown = [f"{a:g} · {e:g}" for a, e, share in cases if share is None or share >= 1]
    text = f"factor · step size where it does not shrink: {', '.join(grown) or 'none'}"
    return judge_all([share is not None and share < 1 for *_, share in cases], text)


def _judge_shares(
    results: Results, names: Sequence[str], part: str, holds: Callable[[np.ndarray], Any]
) -> Verdict:
    """Judge whether something holds for the errors of each net of some conditions.

    The evidence also says for how many nets that start near the identity it holds.
    """
    verdicts = []
    for name in names:
        errors = _errors(results, name, part)
        last = errors[..., -1] if len(errors) else np.array([np.nan])
        # A range, since an error may be infinite.
        text = f"{name}, last error {last.min():.2g} to {last.max():.2g}"
        verdict = judge_share([bool(holds(each)) for each in errors], text)
        near = [bool(holds(each)) for each in _errors(results, near_identity(name), part)]
        if near:
            note = f"{verdict.evidence}, near the identity {sum(near)} of {len(near)}"
            verdict = verdict._replace(evidence=note)
        verdicts.append(verdict)
    return combine(verdicts)


def _judge_trained(results: Results) -> Verdict:
    chance = _chance(results)
    return _judge_shares(
        results, tuple(NAMES.values()), "early", lambda error: error[-1] < 0.05 * chance
    )


def _judge_meaningless(results: Results) -> Verdict:
    chance = _chance(results)
    return _judge_shares(
        results, ("feed-forward",), "early", lambda error: np.all(error[1:-1] > chance)
    )


def _judge_smooth(results: Results, name: str) -> Verdict:
    return _judge_shares(results, (name,), "early", lambda error: np.all(np.diff(error) < 0))


def _without_block(results: Results, name: str) -> dict[int, float]:
    return results.by_seed(name, "errors", "left_out", LEFT_OUT - 1, -1)


def _judge_minor(results: Results) -> Verdict:
    errors = np.array(list(_without_block(results, "ResNet").values()))
    near = list(_without_block(results, near_identity("ResNet")).values())
    chance = _chance(results)
    text = f"error without block {LEFT_OUT} {show(errors)}, near the identity {show(near)}; "
    return judge_not_worse(errors, chance / 4, f"{text}constant prediction {chance:.2f}")


def _judge_more_robust(results: Results) -> Verdict:
    differences = paired(_without_block(results, "ResNet"), _without_block(results, "feed-forward"))
    return judge_sign(differences, -1, f"error without block {LEFT_OUT}, ResNet less feed-forward")


def _judge_divergence(results: Results) -> Verdict:
    chance = _chance(results)
    return _judge_shares(results, RESIDUAL, "repeated", lambda error: error[-1] > chance)


def _is_steady(error: np.ndarray) -> bool:
    """Return whether no extra application adds more than twice what the first added."""
    if not np.isfinite(error).all():
        return False
    added = np.diff(error)
    return bool(added.max() <= 2 * added[0])


def _judge_speed(results: Results) -> Verdict:
    return _judge_shares(results, RESIDUAL, "repeated", _is_steady)


CLAIMS = (
    Claim(
        "The error-corrective algorithm converges to the true z.",
        "Lippl et al., Fig. 1b",
        "Each of 16 updates after the eighth lowers the mean error, and 24 updates lower it below "
        "0.00001; the algorithm does not depend on chance.",
        _judge_algorithm,
    ),
    Claim(
        "With a linear forward model, every step size up to 1 converges.",
        "Lippl et al., beside Fig. 1",
        f"For the factors {', '.join(map(str, FACTORS))} and step sizes "
        f"{', '.join(map(str, STEP_SIZES))} the error after {UPDATES} updates is smaller than at "
        "first.",
        _judge_step_sizes,
    ),
    Claim(
        "All trained networks learn to invert the forward model.",
        "Lippl et al., Fig. 1b",
        "The mean error after the last block is below a twentieth of that of the constant "
        "prediction 0, for all nets of each kind.",
        _judge_trained,
    ),
    Claim(
        "Early readouts of the feed-forward network are meaningless.",
        "Lippl et al., Fig. 1b",
        "After each block but the last, the mean error is larger than that of the constant "
        "prediction 0, for all nets.",
        _judge_meaningless,
    ),
    *(
        Claim(
            f"Early readouts of the {name} network approach its final estimate smoothly.",
            "Lippl et al., Fig. 1b",
            "Each block lowers the mean error, for all nets with Keras's initial weights.",
            partial(_judge_smooth, name=name),
        )
        for name in RESIDUAL
    ),
    Claim(
        "Leaving out the fourth block has a minor impact on the ResNet.",
        "Lippl et al., Fig. 1c",
        "The mean error without it is at most a quarter of that of the constant prediction 0: the "
        "upper end of the 95% interval over seeds.",
        _judge_minor,
    ),
    Claim(
        "Leaving out the fourth block changes the ResNet less than the feed-forward network.",
        "Lippl et al., Fig. 1c",
        "The mean error without it is smaller: the 95% interval of the difference, paired by seed, "
        "lies below 0.",
        _judge_more_robust,
    ),
    Claim(
        "Repeating the last block of the ResNet and of the recurrent network diverges.",
        "Lippl et al., Fig. 1d",
        "After 16 extra applications the mean error is larger than that of the constant prediction "
        "0, for all nets of both kinds.",
        _judge_divergence,
    ),
    Claim(
        "The repeated last block overshoots the estimate at a constant speed.",
        "Lippl et al., Fig. 1d",
        "None of 16 extra applications raises the mean error by more than twice what the first "
        "raises it by, for all nets of both kinds.",
        _judge_speed,
    ),
)


def measurements(results: Results) -> Measurements:
    """Return what the figure shows: the algorithm and the networks with Keras's initial weights."""
    names = {**NAMES, "algorithm": ALGORITHM}
    rows = {
        kind: [row for row in results.rows if row.condition == name] for kind, name in names.items()
    }
    missing = [names[kind] for kind, found in rows.items() if not found]
    if missing:
        raise LookupError(f"no results of {', '.join(missing)}")
    return Measurements(
        np.array(PICTURED_Z),
        {
            kind: Readouts(
                **{name: np.array(v, float) for name, v in f[0].measures["paths"].items()}
            )
            for kind, f in rows.items()
        },
        {
            kind: Readouts(
                *(
                    np.array([row.measures["errors"][part] for row in found], float)
                    for part in ("early", "left_out", "repeated")
                )
            )
            for kind, found in rows.items()
        },
        _chance(results),
    )


def draw(path: Path, results: Results) -> None:
    """Draw the algorithm, the paths of four methods, and the effect of two disturbances."""
    from ..inverse_problem_figure import draw_figure

    draw_figure(path, measurements(results))


TOY = Experiment(
    name="toy",
    title="A toy inverse problem: an algorithm, and trained networks",
    source="Lippl et al., Fig. 1",
    conditions=conditions,
    seeds={"cpu": 5, "paper": 5},
    compute=measure,
    claims=CLAIMS,
    draw=draw,
    reduced="Nothing.",
    single=lambda scale: {ALGORITHM: {"kind": ALGORITHM}},
)
