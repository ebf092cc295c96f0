"""From wrong answers to indices, their intervals, and what is shown of them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_iterconv._support.text_table import as_text

CONFIDENCE = 0.95
INDICES = ("convergence", "recurrence", "divergence")
_CHUNK = 100  # Resamples at a time.


class StageErrors(NamedTuple):
    """Which samples a perturbed stage gets wrong, bool; averaged over samples, error curves.

    Attributes:
        early_readout: `[T, N]`, the stage read out after block 1, ..., T.
        left_out: `[T, N]`, block 1, ..., T left out.
        repeated: `[16, N]`, the last block applied 1, ..., 16 more times.
    """

    early_readout: np.ndarray
    left_out: np.ndarray
    repeated: np.ndarray


@dataclass(frozen=True, eq=False)
class IndexReport:
    """The indices of each stage, with the curves that they summarise.

    Attributes:
        stages: The stages' names.
        samples: N, the number of test samples.
        error: The intact net's error.
        chance: The error of a guess.
        convergence: `[stages]`, CI: 1 for a final answer after the first block, 0 for chance at
            every block but the last.
        recurrence: `[stages]`, RI: 1 where each block is missed as much as the last one is.
        divergence: `[stages]`, DI: 0 where more of the last block changes no error.
        intervals: For each index's name, `[stages, 2]`: 95% percentile intervals of the bootstrap
            over test samples.
        errors: For each stage, the error curves, float `[T]`, `[T]` and `[16]`.
        reasons: For each stage, why an index is not a number, by the index's name.
    """

    stages: list[str]
    samples: int
    error: float
    chance: float
    convergence: np.ndarray
    recurrence: np.ndarray
    divergence: np.ndarray
    intervals: dict[str, np.ndarray]
    errors: list[StageErrors]
    reasons: list[dict[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, lists and strings; what is undefined is None."""
        return {
            "stages": self.stages,
            "samples": self.samples,
            "error": self.error,
            "chance": self.chance,
            **{name: _plain(getattr(self, name)) for name in INDICES},
            "intervals": {name: _plain(self.intervals[name]) for name in INDICES},
            "mean": {name: _plain(np.mean(getattr(self, name))) for name in INDICES},
            "errors": [
                {field: _plain(getattr(stage, field)) for field in StageErrors._fields}
                for stage in self.errors
            ],
            "reasons": self.reasons,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "IndexReport":
        """Build a report from what `to_dict` returned."""
        return cls(
            stages=list(content["stages"]),
            samples=content["samples"],
            error=content["error"],
            chance=content["chance"],
            **{name: np.array(content[name], np.float64) for name in INDICES},
            intervals={name: np.array(content["intervals"][name], np.float64) for name in INDICES},
            errors=[
                StageErrors(*(np.array(stage[field]) for field in StageErrors._fields))
                for stage in content["errors"]
            ],
            reasons=[dict(reasons) for reasons in content["reasons"]],
        )

    def table(self) -> Table:
        """Return the indices as a Rich table."""
        table = Table(
            title=f"Indices on {self.samples:,} samples: error {self.error:.2%}, "
            f"chance {self.chance:.2%}; 95% intervals",
            title_justify="left",
        )
        table.add_column("stage")
        for name in INDICES:
            table.add_column(name, justify="right")
        for s, stage in enumerate(self.stages):
            table.add_row(escape(stage), *(self._cell(name, s) for name in INDICES))
        if len(self.stages) > 1:
            table.add_section()
            means = (np.mean(getattr(self, name)) for name in INDICES)
            table.add_row("mean", *("-" if np.isnan(mean) else f"{mean:.3f}" for mean in means))
        reasons = sorted({why for reasons in self.reasons for why in reasons.values()})
        if reasons:
            table.caption = "; ".join(reasons)
        return table

    def _cell(self, name: str, s: int) -> str:
        value = getattr(self, name)[s]
        if np.isnan(value):
            return "-"
        low, high = self.intervals[name][s]
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    def __str__(self) -> str:
        return as_text(self.table())

    def plot(self):
        """Draw the error curves and the indices, as Lippl et al., Fig. 2.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_iterconv.indices.index_plot import plot_indices

        return plot_indices([self])


def make_report(
    stages: list[str], wrong: list[StageErrors], chance: float, resamples: int, seed: int
) -> IndexReport:
    """Compute the indices and their intervals from the wrong answers of each stage."""
    samples = wrong[0].early_readout.shape[1]
    full = float(wrong[0].early_readout[-1].mean())
    errors = [StageErrors(*(curve.mean(axis=1) for curve in stage)) for stage in wrong]
    doubt = 2 * np.sqrt(chance * (1 - chance) / samples)
    reasons = [_reasons(stage, chance, doubt) for stage in errors]
    spread = [_resample(stage, chance, resamples, seed) for stage in wrong]
    values, intervals = {}, {}
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    for number, name in enumerate(INDICES):
        undefined = [name in why for why in reasons]
        values[name] = np.array(
            [
                np.nan if nan else compute_indices(stage, chance)[number]
                for stage, nan in zip(errors, undefined, strict=True)
            ]
        )
        intervals[name] = np.array(
            [
                [np.nan, np.nan]
                if nan
                else np.quantile(draws[number][np.isfinite(draws[number])], tails)
                for draws, nan in zip(spread, undefined, strict=True)
            ]
        )
    return IndexReport(
        stages=stages,
        samples=samples,
        error=full,
        chance=chance,
        **values,
        intervals=intervals,
        errors=errors,
        reasons=reasons,
    )


def compute_indices(errors: StageErrors, chance: float):
    """Return CI, RI and DI of error curves, `[...]` each from curves `[..., steps]`.

    CI = 1 - mean_{t<T} (e_t - e_T) / (chance - e_T), RI = 1 - mean_{t<T} (d_t - d_T) /
    (chance - d_T) and DI = mean_k (e_{+k} - e_T) / (chance - e_T), with e_T the intact net's
    error. Not finite, or without a meaning, where a denominator vanishes.
    """
    early, left_out, repeated = errors
    if early.shape[-1] == 1:
        nan = np.full(early.shape[:-1], np.nan)
        return nan, nan, nan
    full, last = early[..., -1:], left_out[..., -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        convergence = 1 - np.mean((early[..., :-1] - full) / (chance - full), axis=-1)
        recurrence = 1 - np.mean((left_out[..., :-1] - last) / (chance - last), axis=-1)
        divergence = np.mean((repeated - full) / (chance - full), axis=-1)
    return convergence, recurrence, divergence


def _reasons(errors: StageErrors, chance: float, doubt: float) -> dict[str, str]:
    """Say which indices are undefined, and why.

    Args:
        errors: The stage's error curves.
        chance: The error of a guess.
        doubt: Two standard errors of it.
    """
    if len(errors.early_readout) == 1:
        return dict.fromkeys(INDICES, "a stage of one block has no index")
    if errors.early_readout[-1] >= chance - doubt:
        return dict.fromkeys(
            INDICES, "the net's error is not two standard errors better than chance"
        )
    # The denominator of RI is then zero but for the luck of the sample.
    if abs(errors.left_out[-1] - chance) <= doubt:
        return {"recurrence": "without its last block the net is at chance"}
    return {}


def _resample(wrong: StageErrors, chance: float, resamples: int, seed: int) -> np.ndarray:
    """Return the indices of bootstrap samples, `[3, resamples]`."""
    rng = np.random.default_rng(seed)
    curves = np.concatenate(wrong).astype(np.float32)
    steps = np.cumsum([len(wrong.early_readout), len(wrong.left_out)])
    samples = curves.shape[1]
    draws = []
    for begin in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - begin)
        # How often each sample was drawn says all about a bootstrap sample.
        picks = rng.integers(samples, size=(count, samples))
        times = np.stack([np.bincount(row, minlength=samples) for row in picks])
        means = times.astype(np.float32) @ curves.T / samples
        draws.append(compute_indices(StageErrors(*np.split(means, steps, axis=-1)), chance))
    return np.concatenate(draws, axis=-1)


def _plain(values):
    """Turn an array into lists of floats, with None for what is not finite."""
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        return float(values) if np.isfinite(values) else None
    return [_plain(value) for value in values]
