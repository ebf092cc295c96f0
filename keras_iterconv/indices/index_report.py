"""Indices and their confidence intervals, computed from wrong predictions, and their table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from keras_iterconv._support.text_table import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENCE = 0.95
INDICES = ("convergence", "recurrence", "divergence")
_CHUNK = 100  # Number of bootstrap samples computed at a time.


class StageErrors(NamedTuple):
    """Wrong predictions of a net with a perturbed stage, bool; or error curves, their means over N.

    Attributes:
        early_readout: With the stage read out after block 1, ..., T, `[T, N]`.
        left_out: Without block 1, ..., T, `[T, N]`.
        repeated: With the last block applied 1, ..., 16 more times, `[16, N]`.
    """

    early_readout: np.ndarray
    left_out: np.ndarray
    repeated: np.ndarray


@dataclass(frozen=True, eq=False)
class IndexReport:
    """The indices of each stage of a net, and the error curves that they summarise.

    Attributes:
        stages: Names of the stages.
        samples: Number of test samples N.
        error: Error of the unperturbed net.
        chance: Error of guessing (chance level).
        convergence: Convergence index CI, `[stages]`: 1 where the error is final after the first
            block, 0 where it is at chance until the last block.
        recurrence: Recurrence index RI, `[stages]`: 1 where leaving out any block increases the
            error as much as leaving out the last one.
        divergence: Divergence index DI, `[stages]`: 0 where further runs of the last block do not
            change the error.
        intervals: For each index's name, 95% percentile intervals of the bootstrap over test
            samples, `[stages, 2]`.
        errors: For each stage, the error curves: `early_readout` after each block, `[T]`,
            `left_out` without each block, `[T]`, and `repeated` with the last block applied 1 to 16
            more times, `[16]`.
        reasons: For each stage, why an index is undefined, by the index's name.

    Example:
        >>> model = ki.create_model("resnet_w8", (8, 8, 1), 10, blocks=2)
        >>> data = np.zeros((20, 8, 8, 1)), np.arange(20) % 10
        >>> report = ki.measure_indices(model, data, resamples=10)
        >>> report.stages, report.error
        (['stage1', 'stage2', 'stage3'], 0.9)
        >>> report.reasons[0]["convergence"]  # an untrained net
        "the net's error is not two standard errors better than chance"
        >>> ki.IndexReport.from_dict(report.to_dict()).stages == report.stages
        True

    See also:
        `measure_indices`, which returns it; `plot_indices`, for several nets.
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
        """Return the report as numbers, lists and strings; undefined values become None.

        See also:
            `IndexReport.from_dict`.
        """
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
        """Return the report from the result of `to_dict`.

        See also:
            `IndexReport.to_dict`.
        """
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
        """Return the indices as a Rich table.

        See also:
            `IndexReport.plot`.
        """
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

    def plot(self) -> "Figure":
        """Return a figure of the error curves and the indices, as in Fig. 2 of Lippl et al.

        Returns:
            A `matplotlib.figure.Figure`.

        See also:
            `plot_indices`, for several nets; `IndexReport.table`.
        """
        from keras_iterconv.indices.index_plot import plot_indices

        return plot_indices([self])


def make_report(
    stages: list[str], wrong: list[StageErrors], chance: float, resamples: int, seed: int
) -> IndexReport:
    """Return the indices and their intervals, from the wrong predictions of each stage."""
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


def compute_indices(errors: StageErrors, chance: float) -> tuple:
    """Return CI, RI and DI, each `[...]`, of error curves `[..., steps]`.

    CI = 1 - mean_{t<T} (e_t - e_T) / (chance - e_T), RI = 1 - mean_{t<T} (d_t - d_T) /
    (chance - d_T) and DI = mean_k (e_{+k} - e_T) / (chance - e_T). e_t is the error of reading out
    after block t, so e_T is that of the unperturbed net; d_t is the error without block t, and
    e_{+k} that with k more runs of the last block. Where a denominator vanishes the index is not
    finite or has no meaning.
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
    """Return the reasons why indices are undefined, by the index's name.

    Args:
        errors: Error curves of the stage.
        chance: Error of guessing.
        doubt: Two standard errors of `chance`.
    """
    if len(errors.early_readout) == 1:
        return dict.fromkeys(INDICES, "a stage of one block has no index")
    if errors.early_readout[-1] >= chance - doubt:
        return dict.fromkeys(
            INDICES, "the net's error is not two standard errors better than chance"
        )
    # The denominator of RI is then zero up to the sampling error.
    if abs(errors.left_out[-1] - chance) <= doubt:
        return {"recurrence": "without its last block the net is at chance"}
    return {}


def _resample(wrong: StageErrors, chance: float, resamples: int, seed: int) -> np.ndarray:
    """Return the three indices of each bootstrap sample, `[3, resamples]`."""
    rng = np.random.default_rng(seed)
    curves = np.concatenate(wrong).astype(np.float32)
    steps = np.cumsum([len(wrong.early_readout), len(wrong.left_out)])
    samples = curves.shape[1]
    draws = []
    for begin in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - begin)
        # A bootstrap sample is given by the number of draws of each sample.
        picks = rng.integers(samples, size=(count, samples))
        times = np.stack([np.bincount(row, minlength=samples) for row in picks])
        means = times.astype(np.float32) @ curves.T / samples
        draws.append(compute_indices(StageErrors(*np.split(means, steps, axis=-1)), chance))
    return np.concatenate(draws, axis=-1)


def _plain(values):
    """Return an array as lists of floats, with None for values that are not finite."""
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        return float(values) if np.isfinite(values) else None
    return [_plain(value) for value in values]
