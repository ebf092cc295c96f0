"""The publication of a trained model in a zoo: its files, its card and its entry in the index."""

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from rich.console import Console

import keras_iterconv as ki
from iterconv.command_errors import UserError, as_user_error, check_folder
from keras_iterconv._support.keras_files import load_model_file, save_model_file
from keras_iterconv.datasets import DatasetError, ImageData, load_published_data
from keras_iterconv.depth.figure_by_class import NoFigureError, draw_depths, measure_depths
from keras_iterconv.exporting.exported_function import shared_depth
from keras_iterconv.exporting.folding import fold, in_float32
from keras_iterconv.exporting.onnx_graph import count_operators
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.exporting.saved_model import write_saved_model
from keras_iterconv.layers.rules.rows import plain
from keras_iterconv.not_finite import find_not_finite_variable
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.runs import FinishedRun, plain_name, read_finished_run
from keras_iterconv.tasks import TASKS
from keras_iterconv.zoo.index import CARD

from .calibrated_run import calibrate_run, load_run_data, measure_again
from .data_source import READING, describe_source, task_name
from .model_card import make_card
from .preparation import PREPARATIONS
from .quantized_file import INT8, describe_int8, int8_name, write_int8
from .zoo_folder import CURVES, DEPTH_FIGURE, SAVED_MODEL, check_name, commit, new_entry

# That of this package, and of a net whose author names no other.
LICENSE = "Apache-2.0"
# Keys of a run's data set that go into the index.
DATA = ("input_shape", "classes", "scale", "mean", "std")
# Number of noise images from which the gradient ascent of the certificate starts.
PROBE = 16
# Largest number of test images in the figure of depth.
FIGURE_PICTURES = 2000
# Largest number of their pixels, which are in memory.
FIGURE_PIXELS = 2**24


def read_run(path: Path) -> tuple[FinishedRun, keras.Model]:
    """Return a finished run and its model.

    Returns:
        The run, and its last model without the optimizer.

    Raises:
        UserError: The folder holds no finished run, or a file does not have the format of a run.
    """
    check_folder("RUN", path)
    run = as_user_error(read_finished_run, path)
    model = as_user_error(load_model_file, run.files.last)
    variable = find_not_finite_variable(model.weights)
    if variable is not None:
        raise UserError(
            f"a model must have finite weights to be published: {variable.path} is not finite"
        )
    return run, model


def publish_run(
    path: Path,
    name: str | None,
    zoo: Path,
    formats: list[str],
    console: Console,
    budget: Mapping[str, Any] | None = None,
    quantize: bool = False,
    inputs: str = "settable",
    license: str | None = None,
) -> str:
    """Publish the last model of a finished run, and return its name.

    Args:
        path: The run's folder.
        name: The model's name in the zoo; None for `MODEL_DATASET`.
        zoo: The zoo's folder.
        formats: The formats to write beside the .keras file, of `saved_model` and `onnx`.
        console: The console for the progress; it must print names without interpreting markup.
        budget: `accuracy_loss` or `mean_updates`, to which the depth is calibrated before; None for
            the depth of the run.
        quantize: Whether to write a second ONNX file, with weights of 8 bits.
        inputs: How the depth of the ONNX file is set: `"settable"`, `"required"` or `"fixed"`.
        license: The licence of the net, an SPDX name; None for `LICENSE`.

    Raises:
        DatasetError: `budget` or `quantize` is given, or the run is of mixed precision, and its
            data set is not on this machine.
        UserError: The folder holds no finished run, the budget cannot be met, or the zoo cannot be
            written.
        ZooError: The name or the zoo's index is invalid.
        KeyboardInterrupt: The user interrupted; a message tells that the zoo is unchanged.
    """
    if name is not None:
        check_name(name)
    try:
        run, model = read_run(path)
        name = name or plain_name(run.settings["model"], run.settings["dataset"], "_")
        # As the other files, which then agree with it; half precision is slow on some processors.
        with in_float32(model):
            if budget is not None:
                console.print(f"{name}: calibrating the depth", soft_wrap=True)
                run = calibrate_run(run, model, budget)
                console.print(run.result["calibrated"], soft_wrap=True)
            elif run.settings.get("mixed_precision"):
                console.print(f"{name}: measuring its accuracy in float32", soft_wrap=True)
                run = measure_again(run, model, load_run_data(run))
            publication = _Publication(run, model, name, zoo, console, inputs, license or LICENSE)
            publication.publish(formats, load_run_data(run) if quantize else None)
    except KeyboardInterrupt:
        console.print(
            f"{name or path} is not published; the previous content of {zoo} is kept",
            soft_wrap=True,
        )
        raise
    return name


class _Publication:
    """The publication of one run.

    Args:
        run: The finished run.
        model: The run's last model.
        name: The model's name in the zoo.
        zoo: The zoo's folder.
        console: The console for the progress.
        inputs: How the depth of the ONNX file is set.
        license: The licence of the net.
    """

    def __init__(
        self,
        run: FinishedRun,
        model: keras.Model,
        name: str,
        zoo: Path,
        console: Console,
        inputs: str,
        license: str,
    ):
        self.run, self.model, self.name, self.zoo, self.console = run, model, name, zoo, console
        self.inputs, self.license = inputs, license
        self.preprocessing = Preprocessing(*(tuple(run.data[key]) for key in ("mean", "std")))
        self.task = TASKS[task_name(run.settings["dataset"])]
        self.folded = fold(model)
        self.depth = as_user_error(shared_depth, self.folded)

    def say(self, text: str) -> None:
        self.console.print(f"{self.name}: {text}", soft_wrap=True)

    def publish(self, formats: list[str], calibration: ImageData | None = None) -> None:
        """Write the files and the index.

        Args:
            formats: The formats beside the .keras file.
            calibration: The run's data set, for a second ONNX file with weights of 8 bits.
        """
        self.say("computing the certificate")
        entry = self._describe()
        try:
            with new_entry(self.zoo, self.name) as staged:
                self._write_model(staged)
                if "onnx" in formats:
                    converted = self._convert_to_onnx(_metadata(self.name, entry))
                    onnx.save(converted, staged / f"{self.name}.onnx")
                    entry["operators"] = count_operators(converted)
                    if calibration is not None:
                        self.say("quantising the weights")
                        int8_path = staged / int8_name(self.name)
                        entry[INT8] = write_int8(converted, int8_path, calibration)
                        self.say(f"int8: {describe_int8(entry)}")
                if "saved_model" in formats:
                    self._write_saved_model(staged)
                shutil.copyfile(self.run.files.curves, staged / CURVES)
                if self.depth is not None:
                    self.say("drawing the figure of depth")
                    _draw_depth(self.run, self.model, self.name, staged / DEPTH_FIGURE, self.say)
                card = make_card(self.name, entry, staged, self.zoo, self.inputs != "fixed")
                (staged / CARD).write_text(card, encoding="utf-8")
                commit(self.zoo, self.name, staged, entry)
        # TensorFlow's errors, for example on a full disk, are not OSErrors.
        except (OSError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.zoo} cannot be written: {reason}; its previous content is kept"
            ) from error
        self.say(f"published in {self.zoo}")

    def _describe(self) -> dict[str, Any]:
        """Return the entry of the index, without the fields that depend on the written files."""
        run = self.run
        return {
            "architecture": run.settings["model"],
            "dataset": run.settings["dataset"],
            **describe_source(run),
            **{key: run.data[key] for key in DATA},
            "depth": None if self.depth is None else self.depth._asdict(),
            "parameters": self.folded.count_params(),
            "command": run.command,
            "result": {k: v for k, v in run.result.items() if isinstance(v, int | float | str)},
            "certificate": _certify(self.folded, run.data["input_shape"]),
            "operators": {},
            "license": self.license,
            "versions": run.versions,
        }

    def _write_model(self, staged: Path) -> None:
        model = self.model
        model.preprocessing = self.preprocessing
        model.class_names = tuple(self.run.data["classes"])
        save_model_file(model, staged / f"{self.name}.keras")

    def _convert_to_onnx(self, texts: dict[str, str]) -> onnx.ModelProto:
        self.say("converting to ONNX")
        return as_user_error(
            to_onnx, self.folded, self.preprocessing, texts, self.task, self.inputs
        )

    def _write_saved_model(self, staged: Path) -> None:
        self.say("writing the SavedModel")
        as_user_error(
            write_saved_model,
            self.folded,
            staged / SAVED_MODEL,
            self.preprocessing,
            self.task,
        )


def _draw_depth(
    run: FinishedRun, model: keras.Model, name: str, path: Path, say: Callable[[str], None]
) -> None:
    """Draw the figure of depth on test images, if the data set is available."""
    try:
        shape, dataset = run.data["input_shape"], run.settings["dataset"]
        data = load_published_data(
            {"dataset": dataset, "input_shape": shape, **describe_source(run)}
        )
        # The scale of the run's training images, which depends on `limit_train` and
        # `validation_share`.
        data = dataclasses.replace(
            data,
            mean=np.asarray(run.data["mean"], np.float32),
            std=np.asarray(run.data["std"], np.float32),
        )
        count = min(FIGURE_PICTURES, max(FIGURE_PIXELS // math.prod(shape[:2]), 1))
        depths = measure_depths(model, name, data, count)
    except (DatasetError, NoFigureError) as error:
        say(f"the figure of depth is left out: {error}")
    else:
        draw_depths(path, depths)


def _certify(model: keras.Model, input_shape: Sequence[int]) -> dict[str, Any]:
    """Return the summary of a model's certificate."""
    probe = np.random.default_rng(0).normal(size=(PROBE, *input_shape)).astype(np.float32)
    report = ki.certify(model, probe)
    found = report.to_dict()
    factors = [row.factor for row in report.blocks if row.factor is not None]
    return {
        "holds": report.holds,
        "blocks": len(report.blocks),
        "blocks_that_hold": sum(row.holds for row in report.blocks),
        "findings": Counter(row.reason or row.guarantee for row in report.blocks),
        "largest_factor": plain(max(factors)) if len(factors) == len(report.blocks) else None,
        **{key: found[key] for key in ("norm", "bound", "largest_ratio")},
    }


def _metadata(name: str, entry: dict[str, Any]) -> dict[str, str]:
    """Return the metadata of an ONNX file."""
    texts = {
        "model": name,
        "dataset": entry["dataset"],
        "classes": json.dumps(entry["classes"]),
        "scale": f"{entry['scale']:g}",
        "license": entry["license"],
        "version": ki.__version__,
        "result": json.dumps(entry["result"]),
    }
    if "data_source" in entry:
        texts |= {key: json.dumps(entry[key]) for key in ("mean", "std")}
        texts["pictures"] = READING
    if entry["dataset"] in PREPARATIONS:
        texts["preparation"] = json.dumps(PREPARATIONS[entry["dataset"]]._asdict())
    for key, value in (entry["depth"] or {}).items():
        texts[key] = json.dumps(value)
    return texts
