"""The calibration of a run's depth at its publication."""

from collections.abc import Mapping
from typing import Any

import keras

import keras_iterconv as ki
from iterconv.command_errors import UserError, as_user_error
from keras_iterconv.datasets import (
    CATALOGUE,
    PIXELS,
    TEST_SHARE,
    VALIDATION_SHARE,
    ImageData,
    evaluation_batches,
    load_any,
)
from keras_iterconv.datasets.image_data import PARTS, calibration_part
from keras_iterconv.depth.evaluation import evaluate, mirrored_accuracy, results_by_depth
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.runs import FinishedRun

BATCH = 256


def calibrate_run(run: FinishedRun, model: keras.Model, budget: Mapping[str, Any]) -> FinishedRun:
    """Set a model's thresholds by images of its run, and measure accuracy and depth again.

    A budget of updates is met on training images where the run has no validation part.

    Args:
        run: The finished run.
        model: Its model, whose thresholds are set.
        budget: `accuracy_loss` and `mean_updates` of `keras_iterconv.calibrate_depth`.

    Returns:
        The run with the new results and commands. Its folder does not change.

    Raises:
        UserError: The budget cannot be met, or the model has no such depth.
        DatasetError: The data set is not on this machine.
    """
    data = load_run_data(run)
    if budget.get("accuracy_loss") is not None and not len(data.validation):
        raise UserError(
            "--accuracy-loss needs validation images, and the run has none; train with a "
            "--validation-share above 0, or give --mean-updates, for which training images do"
        )
    images, called = calibration_part(data)
    batches = evaluation_batches(images, mean=data.mean, std=data.std, batch_size=BATCH)
    report = as_user_error(ki.calibrate_depth, model, batches, **budget)
    run = measure_again(run, model, data)
    result = {
        **run.result,
        "calibrated": report.describe_calibration(called),
        "calibration": report.to_dict(),
    }
    options = [
        f"--{name.replace('_', '-')} {value:g}"
        for name, value in budget.items()
        if value is not None
    ]
    command = "; ".join([run.command, f"python -m export.publish RUN {' '.join(options)}"])
    return run._replace(result=result, command=command)


def measure_again(run: FinishedRun, model: keras.Model, data: ImageData) -> FinishedRun:
    """Return a run with the accuracy and depth of a model that differs from the trained one."""
    predict = TracedDepth(model)
    evaluations = {
        part: evaluate(predict, data, getattr(data, part), BATCH)
        for part in PARTS
        if len(getattr(data, part))
    }
    result = {**run.result, **results_by_depth(evaluations, model)}
    if "test_accuracy_mirrored" in result:
        result["test_accuracy_mirrored"] = mirrored_accuracy(predict, data, data.test, BATCH)
    return run._replace(result=result)


def load_run_data(run: FinishedRun) -> ImageData:
    """Return the data set of a run.

    Raises:
        UserError: It is not that of the training.
        DatasetError: It is not on this machine.
    """
    settings = run.settings
    named = settings["dataset"] in CATALOGUE
    data: ImageData = as_user_error(
        load_any,
        settings["dataset"],
        settings.get("data"),
        limit_train=settings.get("limit_train"),
        validation_share=settings.get("validation_share", VALIDATION_SHARE),
        pixels=settings.get("pixels", PIXELS[0]),
        image_size=None if named else run.data["input_shape"][:2],
        test_share=settings.get("test_share", TEST_SHARE),
    )
    found = data.describe()
    if found != run.data:
        different = sorted(k for k in {*found, *run.data} if found.get(k) != run.data.get(k))
        place = settings.get("data") or "TFDS_DATA_DIR"
        # A net of mixed precision is measured in any case.
        mixed = settings.get("mixed_precision")
        without = "" if mixed else ", or leave out the budget and --quantize"
        raise UserError(
            f"the data set {settings['dataset']!r} must be that of the training, to measure the "
            f"net again; it differs in {', '.join(different)}; restore its files ({place}){without}"
        )
    return data
