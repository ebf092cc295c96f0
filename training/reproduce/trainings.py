"""The trainings of the experiments: each configuration is trained once, whoever needs it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from iterconv.command_errors import TrainingDivergedError, UserError

from .. import session
from ..run_folder import RunFolder
from ..settings import Settings, make_settings
from .experiment import Case


def trained(case: Case, folder: Path, console: Console) -> RunFolder:
    """Return the finished run of a case's settings, which are those of `training.fit`.

    A run that was interrupted is continued. Runs are named by their settings, so that two
    experiments that train the same net share it.

    Args:
        case: The case.
        folder: The folder of all trainings.
        console: The console for the progress.

    Raises:
        UserError: A run of this name has other settings.
    """
    wanted = make_settings(**dict(case.settings), seed=case.seed)
    run = RunFolder(folder / run_name(wanted))
    # Otherwise all graphs stay in memory until the last run.
    keras.backend.clear_session()
    if not run.config.exists():
        session.start(wanted, str(run.path), console)
        return run
    if run.read_config()["settings"] != wanted:
        raise UserError(f"{run.path} was trained with other settings; remove this folder")
    if run.read_result() is None:
        session.resume(str(run.path), console)
    return run


def trained_or_diverged(case: Case, folder: Path, console: Console) -> RunFolder | None:
    """Return the finished run of a case as `trained` does; None if its loss became infinite or NaN.

    A training that diverges is a result. It diverges again in the same step when it is continued.
    """
    try:
        return trained(case, folder, console)
    except TrainingDivergedError as error:
        console.print(f"diverged: {error}", soft_wrap=True)
        return None


def run_name(settings: Settings) -> str:
    """Return the name of a run: model, data set, seed, and a digest of its settings.

    Settings at their default are left out, so that a setting that is new in a later version does
    not change the name.
    """
    chosen = {
        field.name: value
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    }
    text = json.dumps(chosen, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{settings.model}-{settings.dataset}-{settings.seed}-{digest}"


def result_of(run: RunFolder) -> dict[str, Any]:
    """Return the content of a finished run's `result.json`."""
    result = run.read_result()
    if result is None:
        raise UserError(f"{run.path} holds no finished run")
    return result
