"""The theorems of NAIS-Net as claims about measured trajectories, and the rules of their verdicts.

Nothing here depends on chance, so that one exception refutes a claim. A bound that is proven for a
block cannot be broken; those that the paper states but that do not hold are shown as such.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..experiment import Claim, Results, Verdict
from ..stable_blocks import KINDS
from ..verdicts import judge_all

# The largest excess over a bound that rounding causes, in float64 and for the nets in float32.
ROUNDING, SINGLE_ROUNDING = 1e-9, 1e-3
# A motion or a distance that counts as none, as a share of the first distance.
SETTLED = 1e-6

Measures = Mapping[str, Any]


# How the names of those nets of the zoo begin that consist of NAIS blocks.
NAIS_NETS = ("zoo, nais", "zoo, fast")


def select(results: Results, *words: str) -> dict[str, Measures]:
    """Return the measures of the conditions whose names hold all words, by name."""
    return {
        row.condition: row.measures
        for row in results.rows
        if all(word in row.condition for word in words)
    }


def _judge(
    results: Results,
    words: Sequence[str],
    value: Callable[[Measures], Any],
    holds: Callable[[Any], bool],
    show: Callable[[Measures], str] | None = None,
) -> Verdict:
    """Judge whether something holds for a measure of all conditions whose names hold some words."""
    found = {
        name: measures
        for name, measures in select(results, *words).items()
        if value(measures) is not None
    }
    texts = [
        f"{name}: {show(measures) if show else format(value(measures), '.3g')}"
        for name, measures in found.items()
    ]
    return judge_all([bool(holds(value(each))) for each in found.values()], "; ".join(texts))


def _at_most(limit: float) -> Callable[[Any], bool]:
    return lambda value: value <= limit


def _share(part: str, name: str) -> Callable[[Measures], Any]:
    return lambda measures: None if measures[part] is None else measures[part][name]


def _judge_bound(results: Results, words: Sequence[str], part: str, name: str) -> Verdict:
    """Judge whether distances keep to a bound, stated or proven."""
    value = _share(part, name)
    floor = "floor" if part == "rate" else f"{part}_floor"

    def show(measures: Measures) -> str:
        return f"{value(measures):.3g} of the bound, slopes from {measures[floor]:.2g}"

    return _judge(results, words, value, _at_most(1 + ROUNDING), show)


def _measured(key: str) -> Callable[[Measures], Any]:
    return lambda measures: measures[key]


def _formula(key: str) -> Callable[[Measures], Any]:
    return lambda measures: measures["closed_form"] and measures["closed_form"][key]


def _judge_oscillation(results: Results, relaxed: bool) -> Verdict:
    def value(measures: Measures) -> bool:
        # A relaxed bound: it turns at each update, and still approaches the steady state.
        damped = measures["turns"] == 0
        return damped if not relaxed else not damped and abs(measures["last"]) < 1

    def show(measures: Measures) -> str:
        low, high = measures["eigenvalues"]
        return f"{measures['turns']} changes of sign, eigenvalues {low:.3g} to {high:.3g}"

    words = ["delta relaxed" if relaxed else "delta default"]
    return _judge(results, words, value, bool, show)


def _judge_nets(results: Results) -> Verdict:
    """Judge whether updates and whole nets keep to what is proven for them."""
    texts, held = [], []
    for name, net in select(results, "zoo, ").items():
        text = f"{name}: {net['expansion']:.4g} of the factor in {net['proven']} blocks"
        held.append(net["expansion"] <= 1 + SINGLE_ROUNDING)
        if net["bound"] is not None:
            text += f", ratio {net['largest_ratio']:.3g} of at most {net['bound']:.3g}"
            held.append(net["largest_ratio"] <= net["bound"] * (1 + SINGLE_ROUNDING))
        texts.append(text)
    return judge_all(held, "; ".join(texts))


def _judge_guarantees(results: Results) -> Verdict:
    nets = {name: net for kind in NAIS_NETS for name, net in select(results, kind).items()}
    text = "; ".join(f"{name}: {net['held']} of {net['blocks']}" for name, net in nets.items())
    return judge_all([net["held"] == net["blocks"] for net in nets.values()], text)


_STATED = "No distance exceeds it"
_EACH = "of 8 samples, in 200 updates of each block with drawn weights"
CLAIMS = (
    Claim(
        "The Jacobian of an update has a spectral radius below 1, whatever the slopes.",
        "NAIS-Net, Condition 1 (Eq. 8) and Theorems 2 and 3",
        "The largest of 200 Jacobians with slopes drawn from 0.05 to 1 has one below 1, for a "
        "dense block on Algorithm 1's bound and a convolutional one on Algorithm 2's.",
        partial(
            _judge, words=["Jacobians"], value=_measured("drawn_radius"), holds=lambda r: r < 1
        ),
    ),
    Claim(
        "A convolution is a matrix whose diagonal holds the centre taps, and whose rows hold the "
        "other taps of their filters.",
        "NAIS-Net, Lemma 1",
        "The Jacobian of an update, as a matrix, deviates from it by at most 0.000000001.",
        partial(_judge, words=["Jacobians"], value=_measured("lemma"), holds=_at_most(ROUNDING)),
    ),
    Claim(
        "Algorithm 2 keeps the infinity norm of the Jacobian below 1 where all slopes are 1.",
        "NAIS-Net, Theorem 3",
        "It is below 1 for a convolutional block whose kernel was projected.",
        partial(_judge, words=["Jacobians"], value=_measured("norm"), holds=lambda n: n < 1),
    ),
    Claim(
        "With tanh the state converges to one steady state, from any start.",
        "NAIS-Net, Theorem 1 (Eq. 9)",
        "After 5,000 updates, the next update and the distance of the states from two starts are "
        "at most a millionth of the first distance.",
        partial(
            _judge,
            words=["tanh", "drive"],
            value=lambda measures: max(measures["motion"], measures["start_dependence"]),
            holds=_at_most(SETTLED),
        ),
    ),
    Claim(
        "With ReLU the state converges, to a limit that depends on the start.",
        "NAIS-Net, Theorem 1 (Eq. 9)",
        "After 5,000 updates the next one is at most a millionth of the first distance, and the "
        "states from two starts are further apart than that.",
        partial(
            _judge,
            words=["relu", "drive"],
            value=lambda m: m["motion"] <= SETTLED < m["start_dependence"],
            holds=bool,
            show=lambda m: f"motion {m['motion']:.2g}, limits {m['start_dependence']:.2g} apart",
        ),
    ),
    Claim(
        "With tanh the steady state is a linear function of the input, A⁻¹Bu as printed.",
        "NAIS-Net, Theorem 1",
        "The relative error of the printed formula is at most a millionth, for dense blocks.",
        partial(
            _judge, words=["tanh", "drive"], value=_formula("printed"), holds=_at_most(SETTLED)
        ),
    ),
    Claim(
        "With tanh the steady state is an affine function of the input, -A⁻¹(Bu + b).",
        "NAIS-Net, Theorem 1, with the sign and the bias corrected",
        "The relative error of this formula is at most a millionth, for dense blocks.",
        partial(
            _judge, words=["tanh", "drive"], value=_formula("corrected"), holds=_at_most(SETTLED)
        ),
    ),
    Claim(
        "The distance to the steady state falls at the rate of the spectral radius for slopes of "
        "1.",
        "NAIS-Net, Theorem 1, as stated",
        f"{_STATED}, {_EACH}.",
        partial(_judge_bound, words=["drive"], part="rate", name="stated"),
    ),
    Claim(
        "The distance to the steady state falls at the rate that follows from the smallest slope "
        "on the states visited.",
        "NAIS-Net, Theorem 1, with the floor of Eq. 7",
        f"{_STATED}, {_EACH}; this bound is proven.",
        partial(_judge_bound, words=["drive"], part="rate", name="proven"),
    ),
    *(
        Claim(
            f"With tanh and a perturbed input, {what}, for {slopes}.",
            f"NAIS-Net, Theorem 1 ({equation}), {how}",
            f"{_STATED}, {_EACH}{'; this bound is proven' if name == 'proven' else ''}.",
            partial(_judge_bound, words=["tanh", "drive"], part=part, name=name),
        )
        for part, equation, what in (
            ("perturbed", "Eq. 10", "the distance keeps to the rate and the gain"),
            ("invariant", "Eq. 11", "a state within the gain of the steady state stays there"),
        )
        for name, slopes, how in (
            ("stated", "slopes of 1", "as stated"),
            ("proven", "the smallest slope visited", "with the floor of Eq. 7"),
        )
    ),
    Claim(
        "With ReLU and a perturbed input, the distance keeps to the rate, the gain and the first "
        "distance.",
        "NAIS-Net, Theorem 1 (Eq. 12)",
        f"{_STATED}, {_EACH}; for convolutions this bound is proven, in the infinity norm.",
        partial(
            _judge,
            words=["relu", "drive"],
            value=_measured("practical"),
            holds=_at_most(1 + ROUNDING),
        ),
    ),
    Claim(
        "No update of a tied block expands the distance of two states, with tanh or ReLU.",
        "NAIS-Net, Theorems 1 to 3; docs/certificates.md has the proof",
        "The largest factor of 200 updates and 8 pairs is at most 1, in the block's own norm; this "
        "bound is proven.",
        partial(
            _judge,
            words=["drive"],
            value=_measured("expansion"),
            holds=_at_most(1 + ROUNDING),
        ),
    ),
    Claim(
        "With delta = 1 - 2 epsilon the state approaches its steady state without oscillation.",
        "NAIS-Net, Theorem 2",
        "Near the steady state, the coordinate along the most negative eigenvalue of A never "
        "changes its sign, at a step of 1.",
        partial(_judge_oscillation, relaxed=False),
    ),
    Claim(
        "With the relaxed delta = 2 (1 - epsilon) the state oscillates, and is stable.",
        "NAIS-Net, beside Theorem 2",
        "The same coordinate changes its sign, and is smaller after 30 updates.",
        partial(_judge_oscillation, relaxed=True),
    ),
    *(
        Claim(
            f"No update of an untied {kind} block expands the distance of two states.",
            "NAIS-Net, Theorem 1, the untied case",
            "The largest factor of 200 updates and 8 pairs is at most 1, each update in its own "
            "norm; this bound is proven. Only for convolutions is the norm the same for all.",
            partial(
                _judge,
                words=[f"{kind}, untied"],
                value=_measured("expansion"),
                holds=_at_most(1 + ROUNDING),
                show=lambda m: (
                    f"{m['expansion']:.4g}; 2-norm of the distance up to "
                    f"{m['growth']:.3g} times the first"
                ),
            ),
        )
        for kind in KINDS
    ),
    Claim(
        "The state of an untied block converges.",
        "NAIS-Net, Theorem 1, the untied case",
        "The last of 200 updates is at most a millionth of the first; non-expansive updates do not "
        "imply it.",
        partial(_judge, words=["untied"], value=_measured("motion"), holds=_at_most(SETTLED)),
    ),
    Claim(
        "The trained NAIS-Nets meet the condition of their theorems.",
        "NAIS-Net, Theorems 2 and 3",
        "The guarantee of every block of every NAIS-Net in the zoo holds.",
        _judge_guarantees,
    ),
    Claim(
        "No net of the zoo breaks a bound that is proven for it.",
        "NAIS-Net, Theorems 1 to 3; Lippl et al., Eq. 3; docs/certificates.md",
        "No update of a block expands a distance by more than its factor, and no two inputs of a "
        "net that gradient ascent finds exceed its Lipschitz bound, by more than a thousandth.",
        _judge_nets,
    ),
)
