"""Depth calibrated on validation data, and measured: `python -m benchmarks.calibrated_depth`."""

from collections.abc import Iterator
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import typer
from sklearn.datasets import load_digits

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app
from keras_iterconv import datasets
from keras_iterconv.depth.depth_report import format_threshold
from keras_iterconv.depth.depth_settings import apply_settings, read_settings
from keras_iterconv.depth.measurement import tally_settings
from keras_iterconv.depth.tally import DepthTally
from keras_iterconv.depth.traced_depth import TracedDepth

# The data set of each net of the zoo, and its budgets of updates; `README` is the CNN of the README
# on digits in random order.
NETS: dict[str, tuple[str, tuple[float, ...]]] = {
    "nais_mnist_adaptive": ("mnist", (20, 40)),
    "deep_thinking_prefix_sums": ("prefix_sums", (15, 40)),
    "README": ("digits", (12,)),
}
LOSS = 0.005
# Images in a batch, and those of the digits for training and for validation.
BATCH, TRAINING, VALIDATION = 256, 900, 448

Part = tuple[np.ndarray, np.ndarray]


def calibrated_depth(
    nets: Annotated[str, typer.Option(help="Nets, separated by commas.")] = ",".join(NETS),
    samples: Annotated[int, typer.Option(help="Largest number of images of a part.")] = 2000,
    seeds: Annotated[str, typer.Option(help="Seeds of the README's CNN.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(help="Epochs of the README's CNN.")] = 10,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Calibrate the depth of trained nets on validation images, and measure it on test images.

    A budget is met where the test images exceed it by at most their own standard error. The last
    column is the number of rows of `accuracy_by_depth` with different mean updates.
    """
    rows: list[dict[str, Any]] = []
    for net in nets.split(","):
        numbers = [int(text) for text in seeds.split(",")] if net == "README" else [None]
        for seed in numbers:
            model, *parts = _load(net) if seed is None else _train(seed, epochs)
            name = net if seed is None else f"{net}, seed {seed}"
            validation, test = ((x[:samples], y[:samples]) for x, y in parts)
            rows += _measure(name, model, validation, test, NETS[net][1])
    header = ["net", "budget", "threshold", "updates", "accuracy", "test updates", "test accuracy"]
    met = [row["met"] for row in rows if row["met"] is not None]
    title = (
        f"Calibrated on at most {samples:,} images; {sum(met)} of {len(met)} budgets met on as "
        "many test images, within a standard error"
    )
    lines = [_line(row) for row in rows]
    show(title, [*header, "rows"], lines, {"rows": rows}, output)


def _load(name: str) -> tuple[Any, Part, Part]:
    """Return a net of the zoo, and the validation and test parts of its data set."""
    model: Any = ki.load_pretrained(name)
    data = datasets.load(NETS[name][0])
    validation, test = (
        (np.asarray(model.preprocessing(part.images[:])), part.labels)
        for part in (data.validation, data.test)
    )
    return model, validation, test


def _train(seed: int, epochs: int) -> tuple[Any, Part, Part]:
    """Return the CNN of the README, trained on digits, and two parts that it has not seen."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = (images[order] / 16).reshape(-1, 8, 8, 1).astype(np.float32), labels[order]
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1))
    state = keras.layers.Conv2D(16, 3, padding="same")(inputs)
    state = ki.NAISConv2D(16, step_size=0.3, threshold=0.3, max_unroll=50)(state)
    features = keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(state))
    model = ki.IterativeModel(inputs, keras.layers.Dense(10)(features))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(images[:TRAINING], labels[:TRAINING], epochs=epochs, verbose=0)
    end = TRAINING + VALIDATION
    validation, test = slice(TRAINING, end), slice(end, None)
    return model, (images[validation], labels[validation]), (images[test], labels[test])


def _measure(
    name: str, model: Any, validation: Part, test: Part, updates: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Return a row of the model's own settings, and one of each budget."""
    blocks = ki.iterated_blocks(model)
    own = read_settings(blocks)
    budgets: list[dict[str, Any]] = [{"accuracy_loss": LOSS}]
    budgets += [{"mean_updates": number} for number in updates]
    found = [own]
    for budget in budgets:
        ki.calibrate_depth(model, validation, **budget)
        found.append(read_settings(blocks))
        apply_settings(blocks, own)
    table = ki.accuracy_by_depth(model, list(_batches(test)), max_unrolls=[])
    run = TracedDepth(model)
    first, second = (
        tally_settings(run, blocks, _batches(part), found) for part in (validation, test)
    )
    rows = []
    for budget, settings in zip([{}, *budgets], found, strict=True):
        seen, tally = first[settings], second[settings]
        rows.append(
            {
                "net": name,
                "budget": budget,
                "threshold": settings[0].threshold,
                "updates": seen.updates,
                "accuracy": seen.accuracy,
                "test_updates": tally.updates,
                "test_updates_error": tally.updates_standard_error,
                "test_accuracy": tally.accuracy,
                "test_loss": tally.accuracy_loss,
                "test_loss_error": tally.accuracy_loss_standard_error,
                "met": _is_met(budget, tally) if budget else None,
                "rows": None if budget else len({each.updates for each in table.by_threshold}),
            }
        )
    return rows


def _batches(part: Part) -> Iterator[Part]:
    for n in range(0, len(part[0]), BATCH):
        yield part[0][n : n + BATCH], part[1][n : n + BATCH]


def _is_met(budget: dict[str, float], tally: DepthTally) -> bool:
    """Return whether test images exceed a budget by at most their own standard error."""
    if "accuracy_loss" in budget:
        return tally.accuracy_loss - tally.accuracy_loss_standard_error <= budget["accuracy_loss"]
    return tally.updates - tally.updates_standard_error <= budget["mean_updates"]


def _line(row: dict[str, Any]) -> list[str]:
    """Return the texts of a row of the table; the loss has the standard error of differences."""
    budget = [f"{name.split('_')[1]} {limit:g}" for name, limit in row["budget"].items()]
    error = f" ± {100 * row['test_loss_error']:.2f}" if budget else ""
    return [
        "" if budget else row["net"],
        *(budget or ["own threshold"]),
        format_threshold(float(f"{row['threshold']:.3g}")),
        f"{row['updates']:.1f}",
        _percent(row["accuracy"]),
        f"{row['test_updates']:.1f} ± {row['test_updates_error']:.1g}",
        _percent(row["test_accuracy"]) + error,
        "" if budget else f"{row['rows']}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


app = make_command_app(calibrated_depth)

if __name__ == "__main__":
    app()
