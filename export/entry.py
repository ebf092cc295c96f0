"""One trained model as an entry of a zoo: its files, its card, and what the index says of it."""

import dataclasses
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import onnx
from iterconv.training.datasets import CATALOGUE, DatasetError, load_dataset
from iterconv.training.errors import UserError, as_user_error
from iterconv.training.reproduce.depth_figure import draw_depths, measure_depths
from iterconv.training.run_folder import RunFolder
from iterconv.training.settings import Settings, make_settings
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv.certificates.rows import plain

from .card import CARD_RESULTS, make_card
from .folding import fold
from .inference import Normalization, shared_depth
from .onnx import to_onnx
from .onnx_graph import count_operators
from .preparation import PREPARATIONS
from .saved_model import write_saved_model
from .zoo import DEPTH_FIGURE, check_name, commit, new_entry

LICENSE = "Apache-2.0"
# What the index says of a run's data set.
DATA = ("input_shape", "classes", "scale", "mean", "std")
# Images of noise that the certificate's ascent starts from.
PROBE = 16
# Test pictures in the figure of depth, at most.
FIGURE_PICTURES = 2000


class Run(NamedTuple):
    """A finished run.

    Attributes:
        settings: What it was trained with.
        data: What `config.json` says of its data set.
        versions: Of the packages.
        result: What it measured.
        model: Its last one, without the optimizer.
        curves: The file of the figure of loss and accuracy.
    """

    settings: Settings
    data: dict[str, Any]
    versions: dict[str, str]
    result: dict[str, Any]
    model: keras.Model
    curves: Path


def read_run(run: Path) -> Run:
    """Read a run's folder.

    Raises:
        UserError: It holds no finished run.
    """
    folder = RunFolder(run)
    for file in (folder.config, folder.result, folder.last, folder.curves):
        if not file.is_file():
            raise UserError(f"{run} holds no finished run: {file.name} is missing")
    config = folder.read_config()
    try:
        settings, data, versions = (
            Settings(**config["settings"]),
            config["data"],
            config["versions"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.config} is not this version's ({error!r})") from error
    for key in DATA:
        if key not in data:
            raise UserError(f"{folder.config} is not this version's (its data lacks {key!r})")
    try:
        result = json.loads(folder.result.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder.result} is not JSON ({error})") from error
    for key in CARD_RESULTS:
        if not isinstance(result, dict) or key not in result:
            raise UserError(f"{folder.result} is not a finished run's (it lacks {key!r})")
    try:
        model = keras.models.load_model(folder.last, compile=False)
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder.last} is no model that can be loaded: {error}") from error
    return Run(settings, data, versions, result, model, folder.curves)


def publish_run(
    path: Path, name: str | None, zoo: Path, formats: list[str], console: Console
) -> str:
    """Publish the last model of a finished run, and return its name.

    Raises:
        UserError: The folder holds no finished run, or the zoo cannot be written.
    """

    def say(text):
        console.print(f"{name}: {text}", highlight=False, soft_wrap=True)

    if name is not None:
        check_name(name)
    run = read_run(path)
    name = name or f"{run.settings.model}_{run.settings.dataset}"
    folded = fold(run.model)
    depth = as_user_error(shared_depth, folded)
    normalization = Normalization(np.float32(run.data["mean"]), np.float32(run.data["std"]))
    multi_label = CATALOGUE[run.settings.dataset].multi_label
    say("certifying")
    entry: dict[str, Any] = {
        "architecture": run.settings.model,
        "dataset": run.settings.dataset,
        **{key: run.data[key] for key in DATA},
        "depth": None if depth is None else depth._asdict(),
        "parameters": folded.count_params(),
        "command": training_command(run.settings),
        "result": {k: v for k, v in run.result.items() if isinstance(v, int | float | str)},
        "certificate": _certify(folded, run.data["input_shape"]),
        "operators": {},
        "license": LICENSE,
        "versions": run.versions,
    }
    try:
        with new_entry(zoo, name) as staged:
            run.model.save(staged / f"{name}.keras")
            if "onnx" in formats:
                say("converting to ONNX")
                texts = _metadata(name, entry)
                converted = as_user_error(to_onnx, folded, normalization, texts, multi_label)
                onnx.save(converted, staged / f"{name}.onnx")
                entry["operators"] = count_operators(converted)
            if "saved_model" in formats:
                say("writing the SavedModel")
                path = staged / "saved_model"
                as_user_error(write_saved_model, folded, path, normalization, multi_label)
            shutil.copyfile(run.curves, staged / "curves.png")
            if depth is not None:
                say("drawing its depth")
                _draw_depth(run, name, staged / DEPTH_FIGURE, say)
            card = make_card(name, entry, staged, zoo)
            (staged / "README.md").write_text(card, encoding="utf-8")
            commit(zoo, name, staged, entry)
    except OSError as error:
        raise UserError(f"{zoo} could not be written: {error}; what was there is kept") from error
    say(f"published in {zoo}")
    return name


def _draw_depth(run: Run, name: str, path: Path, say: Callable[[str], None]) -> None:
    """Draw the depth of test pictures, where there are any."""
    try:
        data = load_dataset(run.settings.dataset)
        # Those of the training images, which a limit or a share of validation changes.
        data = dataclasses.replace(
            data, mean=np.float32(run.data["mean"]), std=np.float32(run.data["std"])
        )
        depths = measure_depths(run.model, name, data, FIGURE_PICTURES)
    except (DatasetError, UserError) as error:
        say(f"no figure of its depth: {error}")
    else:
        draw_depths(path, depths)


def training_command(settings: Settings) -> str:
    """Return the command that trains with these settings, what has its default left out."""
    given = dataclasses.asdict(settings)
    default = dataclasses.asdict(make_settings(model=settings.model, dataset=settings.dataset))
    default["dataset"] = make_settings(model=settings.model).dataset
    options = ["--model", given.pop("model")]
    for field, value in given.items():
        if value == default[field]:
            continue
        flag = field.replace("_", "-")
        if field == "shared_initialization" and not value:
            flag, value = "independent-initialization", True
        options += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return " ".join(["python -m training.fit", *options])


def _certify(model: keras.Model, input_shape) -> dict[str, Any]:
    """Return the certificate of a net in short."""
    probe = np.random.default_rng(0).normal(size=(PROBE, *input_shape)).astype(np.float32)
    report = ki.certify(model, probe)
    found = report.to_dict()
    factors = [row.factor for row in report.blocks]
    return {
        "holds": report.holds,
        "blocks": len(report.blocks),
        "blocks_that_hold": sum(row.holds for row in report.blocks),
        "findings": Counter(row.reason or row.guarantee for row in report.blocks),
        "largest_factor": None if None in factors else plain(max(factors)),
        **{key: found[key] for key in ("norm", "bound", "largest_ratio")},
    }


def _metadata(name: str, entry: dict[str, Any]) -> dict[str, str]:
    """Return what an ONNX file says of itself."""
    texts = {
        "model": name,
        "dataset": entry["dataset"],
        "classes": json.dumps(entry["classes"]),
        "scale": f"{entry['scale']:g}",
        "license": entry["license"],
        "version": ki.__version__,
        "result": json.dumps(entry["result"]),
    }
    if entry["dataset"] in PREPARATIONS:
        texts["preparation"] = json.dumps(PREPARATIONS[entry["dataset"]]._asdict())
    for key, value in (entry["depth"] or {}).items():
        texts[key] = json.dumps(value)
    return texts
