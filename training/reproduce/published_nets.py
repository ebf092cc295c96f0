"""The nets of the zoo in the experiments: which are there, and their error and indices."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.datasets import ImageData, evaluation_batches
from keras_iterconv.zoo.index import find_zoo, read_index

from .experiment import Case
from .residual_measures import measure

# The residual nets of 16 channels, without coupling, by kind.
CIFAR10_NETS = {
    "ordinary": "resnet_w16_cifar10",
    "ICR": "icr_w16_cifar10",
    "PCR": "pcr_w16_cifar10",
}
# Number of images in a batch.
BATCH = 256


def published(names: Sequence[str], **settings: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of those nets that the zoo holds, by name.

    Args:
        names: Names of nets of the zoo.
        **settings: What is measured of each: further settings of its case.
    """
    models = read_index(find_zoo())["models"]
    return {
        name: {
            "published": name,
            # A net that is published anew is measured anew.
            "sha256": _model_file(models[name])["sha256"],
            **settings,
        }
        for name in names
        if name in models
    }


def load_published(name: str) -> tuple[keras.Model, ImageData]:
    """Return a net of the zoo, and its data set with the scale that it was trained with."""
    zoo = find_zoo()
    entry: Mapping[str, Any] = read_index(zoo)["models"][name]
    data = datasets.load(entry["dataset"])
    mean, std = (np.array(entry[key], np.float32) for key in ("mean", "std"))
    return ki.load_pretrained(name, zoo), dataclasses.replace(data, mean=mean, std=std)


def _model_file(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the facts of the file that Keras loads."""
    (found,) = (facts for file, facts in entry["files"].items() if file.endswith(".keras"))
    return found


def cifar10_nets(_scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of those nets of `CIFAR10_NETS` that the zoo holds, by name."""
    return published(tuple(CIFAR10_NETS.values()), index_images=1000)


def measure_net(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Return the errors and indices of a net of the zoo, or of one that is trained.

    Returns:
        As `residual_measures.measure`.
    """
    if "published" not in case.settings:
        return measure(case, folder, console)
    name = case.settings["published"]
    console.print(f"measuring the indices of {name}")
    entry: Mapping[str, Any] = read_index(find_zoo())["models"][name]
    model, data = load_published(name)
    batches = evaluation_batches(data.test, mean=data.mean, std=data.std, batch_size=BATCH)
    report = ki.measure_indices(model, batches, samples=case.settings["index_images"])
    return {
        "error": 1 - entry["result"]["test_accuracy"],
        "train_error": 1 - entry["result"]["train_accuracy"],
        "parameters": entry["parameters"],
        "indices": report.to_dict(),
    }
