"""NAIS-Net and nine ResNets on MNIST: accuracy, and what each depth has learned."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv import datasets
from keras_iterconv._support.keras_files import load_model_file
from keras_iterconv.datasets import ImageData

from ...presets import PRESETS
from ...run_folder import RunFolder
from ..experiment import Case, Experiment, Results
from ..readouts import as_json, batches_of_test, read_out, states_at, states_by_depth
from ..trainings import result_of, trained_or_diverged
from .mnist_ablation_claims import (
    ACTIVATIONS,
    CLAIMS,
    LONG,
    MODELS,
    NAIS,
    condition_of,
)

EPOCHS = {"cpu": 10, "paper": 150}
UPDATES = 30
# The number of test images whose states are followed.
IMAGES = 500
# The norm of the gradient to which a training is limited that diverges otherwise.
CLIP_NORM = 5.0
# Between the paper's depth and the one at which the stable nets have settled. A step of 5%: times
# of convergence are compared by their ratio.
LATER = tuple(int(depth) for depth in np.geomspace(UPDATES, LONG, 121).round())


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of all conditions of a scale, by name."""
    return {
        condition_of(name, activation): {
            **PRESETS["nais-mnist"],
            "model": model,
            "activation": activation,
            "epochs": EPOCHS[scale],
        }
        for (name, model), activation in product(MODELS.items(), ACTIVATIONS)
    }


def measure(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Train the net of a case, and return what it reads out after each update.

    Returns:
        `diverged`: whether the training diverges without a limit on the gradient's norm; `clipped`:
        whether it was trained with one. If it diverges with one too, nothing else is there: lists
        of None, so that every path to a measure exists. Else `error`, `train_error`, `parameters`;
        on the test part `losses`, `accuracies` and, over 500 images, `norms`, the mean norm of the
        states, by depth `[31]`; `neuron`, the activation of one neuron for one image of each
        class by depth, `[10, 31]`; and `long`, see `_long_run`, for nets of one stable block.
    """
    run = _finite_run(trained_or_diverged(case, folder, console))
    diverged = run is None
    if run is None:
        limited = case._replace(settings={**case.settings, "clip_norm": CLIP_NORM})
        run = trained_or_diverged(limited, folder, console)
    facts = {"diverged": diverged, "clipped": diverged}
    if run is None:
        return {**facts, **_nothing()}
    result, settings = result_of(run), run.read_config()["settings"]
    data = datasets.load(settings.dataset, validation_share=0.0, pixels=settings.pixels)
    return {
        **facts,
        "error": 1 - result["test_accuracy"],
        "train_error": 1 - result["train_accuracy"],
        "parameters": result["parameters"],
        **describe(load_model_file(run.last), data),
    }


def describe(model: ki.IterativeModel, data: ImageData) -> dict[str, Any]:
    """Return the measures of a trained net by depth; `measure` names them."""
    losses, accuracies = read_out(model, data)
    images, labels = (part[:IMAGES] for part in next(iter(batches_of_test(data))))
    states = states_by_depth(model, images)
    firsts = [int(np.argmax(labels.numpy() == label)) for label in range(data.num_classes)]
    shown = states[:, firsts]
    # The range would choose one that is active for a single class.
    low, high = np.quantile(shown[-1], (0.25, 0.75), axis=0)
    neuron = int(np.argmax(high - low))
    stable = len(ki.iterated_blocks(model)) == 1
    return {
        "losses": as_json(losses),
        "accuracies": as_json(accuracies),
        "norms": as_json(np.linalg.norm(states, axis=-1).mean(axis=1)),
        "neuron": as_json(shown[:, :, neuron].T),
        "long": _long_run(model, images, states) if stable else None,
    }


def _long_run(model: ki.IterativeModel, images: Any, states: np.ndarray) -> dict[str, Any]:
    """Return how the states of a stable net settle when its block is repeated.

    Returns:
        `norm`: the mean norm of the states after `LONG` updates; `spread`: their mean distance from
        their mean, as a share of that norm; `motion`: the mean norm of one more update, as a share
        of that norm; `settled`: the numbers of updates after which a tenth and nine tenths of the
        images have come within a tenth of the whole way to their last state, among `LATER` and
        those of the training.
    """
    later = states_at(model, images, (*LATER, LONG + 1))
    last = later[-2]
    norm = np.linalg.norm(last, axis=-1).mean()
    path = np.concatenate([states, later[1:-1]])
    depths = np.array([*range(len(states)), *LATER[1:]])
    way = np.linalg.norm(path - last, axis=-1)
    settled = depths[np.argmax(way <= 0.1 * way[0], axis=0)]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.linalg.norm(last - last.mean(axis=0), axis=-1).mean() / norm
        motion = np.linalg.norm(later[-1] - last, axis=-1).mean() / norm
    return {
        "norm": as_json(norm),
        "spread": as_json(spread),
        "motion": as_json(motion),
        "settled": as_json(np.quantile(settled, (0.1, 0.9))),
    }


def _finite_run(run: RunFolder | None) -> RunFolder | None:
    """Return a run, or None if its loss in its last epoch was not below that of chance."""
    if run is None:
        return None
    rows = run.read_history(result_of(run)["epochs"])
    return run if rows[-1]["loss"] < np.log(10) else None


def _nothing() -> dict[str, Any]:
    by_depth: Sequence[None] = [None] * (UPDATES + 1)
    return {
        **dict.fromkeys(("error", "train_error", "parameters", "long")),
        **dict.fromkeys(("losses", "accuracies", "norms"), by_depth),
        "neuron": [by_depth] * 10,
    }


def draw(path: Path, results: Results) -> None:
    """Draw the loss by depth, accuracies, and the activation of one neuron for each class."""
    from .mnist_ablation_figure import draw_ablation

    draw_ablation(path, results)


MNIST_ABLATION = Experiment(
    name="mnist-ablation",
    title="NAIS-Net and nine ResNets on MNIST, read out at each depth",
    source="NAIS-Net, 5.1 and Fig. 3",
    conditions=conditions,
    seeds={"cpu": 3, "paper": 10},
    compute=measure,
    claims=CLAIMS,
    draw=draw,
    reduced="10 epochs in place of 150; three seeds in place of ten, but ten for the three nets "
    "whose accuracy the paper gives.",
    # The nets whose accuracy the paper gives, as a mean over ten trainings.
    more_seeds={condition_of(name, "relu"): 10 for name in (NAIS, "ResNet-SH-BN", "ResNet-SH")},
)
