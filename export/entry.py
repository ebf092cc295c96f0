"""One trained model as an entry of a zoo: its files, its card, and what the index says of it."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from iterconv.training.datasets import CATALOGUE
from iterconv.training.errors import UserError
from iterconv.training.run_folder import RunFolder
from iterconv.training.settings import Settings, make_settings
from rich.console import Console

import keras_iterconv as ki

from .card import make_card
from .folding import fold
from .inference import Normalization, shared_depth
from .onnx import to_onnx
from .onnx_graph import count_operators
from .saved_model import write_saved_model
from .zoo import commit, new_entry

LICENSE = "Apache-2.0"
# Images that the certificate's ascent starts from.
PROBE = 16


def publish_run(
    run: Path, name: str | None, zoo: Path, formats: list[str], console: Console
) -> str:
    """Publish the last model of a finished run, and return its name.

    Raises:
        UserError: The folder holds no finished run, or the zoo cannot be written.
    """
    folder = RunFolder(run)
    for file in (folder.config, folder.result, folder.last):
        if not file.is_file():
            raise UserError(f"{run} holds no finished run: {file.name} is missing")
    config = folder.read_config()
    try:
        settings, data = Settings(**config["settings"]), config["data"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.config} is not this version's ({error!r})") from error
    try:
        result = json.loads(folder.result.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder.result} is not JSON ({error})") from error
    name = name or f"{settings.model}_{settings.dataset}"
    try:
        model = keras.models.load_model(folder.last, compile=False)
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder.last} is no model that can be loaded: {error}") from error
    folded = fold(model)
    normalization = Normalization(np.float32(data["mean"]), np.float32(data["std"]))
    multi_label = CATALOGUE[settings.dataset].multi_label
    depth = shared_depth(folded)
    command = training_command(settings)
    console.print(f"{name}: certifying", highlight=False)
    entry: dict[str, Any] = {
        "architecture": settings.model,
        "dataset": settings.dataset,
        **{key: data[key] for key in ("input_shape", "classes", "scale", "mean", "std")},
        "depth": None if depth is None else depth._asdict(),
        "parameters": model.count_params(),
        "command": command,
        "result": {k: v for k, v in result.items() if isinstance(v, int | float | str)},
        "certificate": _certify(folded, data["input_shape"]),
        "operators": {},
        "license": LICENSE,
        "versions": config["versions"],
    }
    try:
        with new_entry(zoo, name) as staged:
            # Without the optimizer, which was not loaded.
            model.save(staged / f"{name}.keras")
            if "onnx" in formats:
                console.print(f"{name}: converting to ONNX", highlight=False)
                converted = to_onnx(folded, normalization, _metadata(name, entry), multi_label)
                onnx.save(converted, staged / f"{name}.onnx")
                entry["operators"] = count_operators(converted)
            if "saved_model" in formats:
                console.print(f"{name}: writing the SavedModel", highlight=False)
                write_saved_model(folded, staged / "saved_model", normalization, multi_label)
            shutil.copyfile(folder.curves, staged / "curves.png")
            card = make_card(name, entry, f"{name}.onnx")
            (staged / "README.md").write_text(card, encoding="utf-8")
            commit(zoo, name, staged, entry)
    except OSError as error:
        raise UserError(f"{zoo} could not be written: {error}; what was there is kept") from error
    console.print(f"{name} is published in {zoo}", highlight=False, soft_wrap=True)
    return name


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
    return {
        "holds": report.holds,
        "blocks": len(report.blocks),
        "blocks_that_hold": sum(row.holds for row in report.blocks),
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
    for key, value in (entry["depth"] or {}).items():
        texts[key] = json.dumps(value)
    return texts
