"""The nets of the zoo in the experiments: which are there, and their error and indices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv.datasets import evaluation_batches
from keras_iterconv.zoo.index import find_zoo, read_index

from .experiment import Case

# Number of images in a batch.
BATCH = 256


def published(names: Sequence[str], index_images: int | None = None) -> dict[str, dict[str, Any]]:
    """Return the settings of those nets that the zoo holds, by name.

    Args:
        names: Names of nets of the zoo.
        index_images: Number of test images for the indices; None for all.
    """
    models = read_index(find_zoo())["models"]
    return {
        name: {
            "published": name,
            "index_images": index_images,
            # A net that is published anew is measured anew.
            "sha256": _model_file(models[name])["sha256"],
        }
        for name in names
        if name in models
    }


def _model_file(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the facts of the file that Keras loads."""
    (found,) = (facts for file, facts in entry["files"].items() if file.endswith(".keras"))
    return found


def measure_published(case: Case, console: Console) -> dict[str, Any]:
    """Return the errors and indices of a net of the zoo, as `residual_measures.measure`."""
    name = case.settings["published"]
    console.print(f"measuring the indices of {name}")
    zoo = find_zoo()
    entry: Mapping[str, Any] = read_index(zoo)["models"][name]
    model = ki.load_pretrained(name, zoo)
    data = datasets.load(entry["dataset"])
    mean, std = (np.array(entry[key], np.float32) for key in ("mean", "std"))
    batches = evaluation_batches(data.test, mean=mean, std=std, batch_size=BATCH)
    report = ki.measure_indices(model, batches, samples=case.settings["index_images"])
    return {
        "error": 1 - entry["result"]["test_accuracy"],
        "train_error": 1 - entry["result"]["train_accuracy"],
        "parameters": entry["parameters"],
        "indices": report.to_dict(),
    }
