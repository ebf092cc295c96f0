"""The result of a run: its last model, evaluated once after training."""

import dataclasses
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

import keras_iterconv as ki
from iterconv.command_errors import UserError
from keras_iterconv.datasets.image_data import calibration_part
from keras_iterconv.depth.evaluation import results_by_depth
from keras_iterconv.runs import training_command

from .checkpoint import save_checkpoint
from .distribution import share_value
from .run_folder import RunFolder
from .run_report import plot_curves, print_result
from .settings import default_settings

if TYPE_CHECKING:
    from .session import _Session


def finish_together(
    session: "_Session",
    folder: RunFolder,
    rows: list[dict[str, float]],
    extensions: Sequence[Mapping[str, int]],
) -> dict[str, Any]:
    """Return what `finish` returns, once all workers have it: the first to end would look lost."""
    try:
        result = finish(session, folder, rows, extensions)
    except UserError:
        share_value(session.strategy, 0.0)
        raise
    share_value(session.strategy, 0.0)
    return result


def finish(
    session: "_Session",
    folder: RunFolder,
    rows: list[dict[str, float]],
    extensions: Sequence[Mapping[str, int]],
) -> dict[str, Any]:
    """Evaluate a trained model, draw the curves, write and print the result, and return it.

    Args:
        session: The run.
        folder: The run's folder.
        rows: The measures of each epoch.
        extensions: The `extensions` of `config.json`.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: The budget of the depth cannot be met; the result is written before.
    """
    calibration, refusal = _calibrate(session, folder, len(rows))
    result = {**_measure(session, rows), **calibration}
    if session.settings.mirrored_test:
        result["test_accuracy_mirrored"] = session.mirrored_accuracy(session.data.test)
    with folder.replacing(folder.curves) as partial:
        plot_curves(partial, rows, session.settings, result["test_accuracy"])
    report = _measure_indices(session)
    if report is not None:
        result["indices"] = report.to_dict()
        with folder.replacing(folder.indices) as partial:
            report.plot().savefig(partial, dpi=120)
    result["command"] = training_command(
        dataclasses.asdict(session.settings),
        extensions,
        default_settings(session.settings),
    )
    # Written last: a folder with `result.json` for all epochs counts as a finished run.
    folder.write_json(folder.result, result)
    print_result(session.console, result, report, folder)
    if refusal is not None:
        place = shlex.quote(str(folder.path))
        raise UserError(
            f"the run is finished, but not calibrated: {refusal}. Another budget can be given to "
            f"iterconv publish {place}"
        )
    return result


def _calibrate(
    session: "_Session", folder: RunFolder, epochs: int
) -> tuple[dict[str, Any], str | None]:
    """Set the thresholds that meet the budget of a run, and store them in its last model.

    The run can still be trained further exactly: only weights are read from that file.

    Returns:
        The report and its text, as in `result.json`; and the reason where the budget cannot be met,
        else None.
    """
    budget = session.settings.budget()
    if not budget:
        return {}, None
    images, called = calibration_part(session.data)
    session.console.print(f"calibrating the depth on {len(images):,} {called}")
    batches = session.measure_batches(images)
    try:
        report = ki.calibrate_depth(session.model, batches, **budget)
    except ValueError as error:
        # The training is not lost by it.
        return {}, str(error).rstrip(".")
    save_checkpoint(session.model, folder, folder.last, epochs)
    facts = {"calibrated": report.describe_calibration(called), "calibration": report.to_dict()}
    return facts, None


def _measure(session: "_Session", rows: list[dict[str, float]]) -> dict[str, Any]:
    settings, data, model = session.settings, session.data, session.model
    evaluations = {
        part: session.evaluate(getattr(data, part))
        for part in ("train", "validation", "test")
        if len(getattr(data, part))
    }
    # Without a validation part there is no best epoch.
    compared = session.comparable(rows) if "validation" in evaluations else []
    best = max(compared, key=lambda row: row["val_accuracy"], default={})
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "epochs": len(rows),
        "parameters": model.count_params(),
        **results_by_depth(evaluations, model),
        "best_epoch": best.get("epoch"),
        "best_validation_accuracy": best.get("val_accuracy"),
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        "seconds": float(sum(row["seconds"] for row in rows)),
        "seed": settings.seed,
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, "
        f"{len(tf.config.list_physical_devices('GPU'))} GPUs",
    }


def _measure_indices(session: "_Session") -> ki.IndexReport | None:
    """Return the indices on the test part; None for a model without stages, or for no images."""
    images = session.settings.index_images
    staged = any(block.scheduled for block in ki.iterated_blocks(session.model))
    if images == 0 or not staged:
        return None
    test = session.data.test
    count = len(test) if images is None else min(images, len(test))
    session.console.print(f"measuring the indices on {count:,} test images")
    return ki.measure_indices(session.model, session.measure_batches(test), samples=count)
