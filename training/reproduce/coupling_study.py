"""The effect of coupling and caps on the three indices, in the conditions of Lippl et al."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_iterconv as ki
from iterconv.command_errors import UserError
from keras_iterconv.indices.index_report import INDICES

from .. import session
from ..run_folder import RunFolder
from ..settings import Settings, make_settings


@dataclasses.dataclass(frozen=True)
class Condition:
    """A model and its training condition.

    Attributes:
        model: The name of the model.
        coupling: The strength lambda of the coupling, with shared initial weights; None for
            independent blocks.
    """

    model: str
    coupling: float | None

    @property
    def name(self) -> str:
        """The name of the condition in folders and plots."""
        if self.coupling is None:
            return f"{self.model}-independent"
        return f"{self.model}-coupled-{self.coupling:g}"


class Measure(NamedTuple):
    """Mean and standard deviation of a measure over several runs, and the number of its values."""

    mean: float
    spread: float
    count: int  # type: ignore[assignment]  # a tuple's method


# The five conditions of Lippl et al. for the model without caps. To save time, only two for the
# capped models: shared initial weights without coupling, and the strongest coupling below 1, with
# which the blocks still differ.
CONDITIONS = (
    *(Condition("resnet_w8", coupling) for coupling in (None, 0.0, 0.5, 0.9, 1.0)),
    *(Condition(model, coupling) for model in ("icr_w8", "pcr_w8") for coupling in (0.0, 0.9)),
)
# With these settings the comparison takes two hours on two cores.
SETTINGS = {"dataset": "mnist", "limit_train": 10_000, "blocks": 4, "epochs": 6}


def train_all(
    folder: Path,
    seeds: Sequence[int],
    console: Console,
    conditions: Sequence[Condition] = CONDITIONS,
    settings: dict = SETTINGS,
) -> None:
    """Train each condition with each seed; skip finished runs, and continue interrupted ones.

    Args:
        folder: The folder for the runs' folders, one for each condition and seed.
        seeds: The training seeds.
        console: The console for the tables and the progress of the runs.
        conditions: The conditions to train.
        settings: The settings of all runs, arguments of `make_settings`.

    Raises:
        UserError: A run in the folder has other settings.
    """
    # Seed by seed, so that early results cover all conditions.
    for seed in seeds:
        for condition in conditions:
            keras.backend.clear_session()  # Otherwise all graphs stay in memory until the last run.
            run = RunFolder(_path(folder, condition, seed))
            wanted = make_settings(
                model=condition.model, coupling=condition.coupling, seed=seed, **settings
            )
            if not run.config.exists():
                session.start(wanted, str(run.path), console)
                continue
            _check_same(run, wanted)
            if run.read_result() is None:
                session.resume(str(run.path), console)


def _path(folder: Path, condition: Condition, seed: int) -> Path:
    return folder / f"{condition.name}-{seed}"


def _check_same(run: RunFolder, wanted: Settings) -> None:
    found = dataclasses.asdict(run.read_config()["settings"])
    for name, value in dataclasses.asdict(wanted).items():
        if found[name] != value:
            raise UserError(
                f"{run.path} was trained with {name}={found[name]!r}, not {value!r}; name "
                "another --output"
            )


def read_results(
    folder: Path, seeds: Sequence[int], conditions: Sequence[Condition] = CONDITIONS
) -> dict[Condition, list[dict]]:
    """Return the content of `result.json` of each finished run, by condition.

    Raises:
        UserError: A file does not have the format of such a run.
    """
    return {
        condition: [
            result
            for seed in seeds
            if (result := _read_result(RunFolder(_path(folder, condition, seed)))) is not None
        ]
        for condition in conditions
    }


def _read_result(run: RunFolder) -> dict | None:
    result = run.read_result()
    if result is not None:
        try:
            ki.IndexReport.from_dict(result["indices"])
            missing = set(INDICES) - set(result["indices"]["mean"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{run.result} must hold a complete report of indices ({error!r})"
            ) from error
        if missing:
            raise UserError(
                f"{run.result} must hold a complete report of indices; missing: {missing}"
            )
    return result


def summarise(results: dict[Condition, list[dict]]) -> list[dict]:
    """Return mean and standard deviation of error and indices over seeds, one row per condition.

    An index of a run is its mean over the stages. A run without a value of an index is left out of
    the mean of that index.
    """
    rows = []
    for condition, runs in results.items():
        row = {"condition": condition.name, "runs": len(runs)}
        measures = {"error": [1 - run["test_accuracy"] for run in runs]}
        for name in INDICES:
            found = [run["indices"]["mean"][name] for run in runs]
            measures[name] = [value for value in found if value is not None]
        for name, values in measures.items():
            mean = float(np.mean(values)) if values else math.nan
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            row[name] = Measure(mean, spread, len(values))
        rows.append(row)
    return rows


def make_table(rows: list[dict]) -> Table:
    """Return the comparison as a Rich table."""
    table = Table(title="Mean (standard deviation) over seeds", title_justify="left")
    table.add_column("condition")
    for column in ("runs", "error", *INDICES):
        table.add_column(column, justify="right")
    for row in rows:
        cells = []
        for name, form in (("error", ".2%"), *((index, ".3f") for index in INDICES)):
            mean, spread, count = row[name]
            few = "" if count == row["runs"] else f", of {count}"
            cells.append(f"{mean:{form}} ({spread:{form}}{few})" if count else "undefined")
        table.add_row(row["condition"], str(row["runs"]), *cells)
    return table


def draw(path: Path, results: dict[Condition, list[dict]]) -> None:
    """Draw the curves and indices of all runs, in the layout of Fig. 2 and 3c of Lippl et al."""
    reports, labels = [], []
    for condition, runs in results.items():
        reports += [ki.IndexReport.from_dict(run["indices"]) for run in runs]
        labels += [condition.name] * len(runs)
    figure = ki.plot_indices(reports, labels)
    figure.savefig(path, dpi=110)
