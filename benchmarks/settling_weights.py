"""Accuracy and updates by the weight of `settling`: `python -m benchmarks.settling_weights`."""

from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import typer
from sklearn.datasets import load_digits

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app

TRAINING = 1437
FILTERS, BATCH, RATE = 16, 64, 0.005
# Relative change of the state below which an image stops.
THRESHOLD = 0.01


def settling_weights(
    weights: Annotated[str, typer.Option(help="Weights of the loss.")] = "0,10,100,200,300",
    seeds: Annotated[str, typer.Option(help="Seeds of each weight.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(help="Epochs of a training.")] = 60,
    max_unroll: Annotated[int, typer.Option(help="Largest number of updates.")] = 20,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Train a small adaptive ReLU net on scikit-learn's digits with several weights of `settling`.

    The net repeats one convolution, x <- relu(C x + u), until the state changes by less than one
    percent. 1,437 images are for training and 360 for the table.
    """
    lines, content = [], {}
    for weight in (float(text) for text in weights.split(",")):
        runs = [_train(weight, int(seed), epochs, max_unroll) for seed in seeds.split(",")]
        content[f"{weight:g}"] = runs
        lines.append(
            [
                f"{weight:g}",
                *(_mean_and_range(runs, name, "{:.1%}") for name in ("accuracy",)),
                _mean_and_range(runs, "updates", "{:.1f}"),
                _mean_and_range(runs, "at_limit", "{:.0%}"),
            ]
        )
    header = ["settling", "accuracy", "updates, mean", "at the limit"]
    title = f"{epochs} epochs, at most {max_unroll} updates; mean (range) of the seeds {seeds}"
    show(title, header, lines, {"weights": content}, output)


def make_net(settling: float, max_unroll: int) -> ki.IterativeModel:
    """Return the net, not trained."""
    state, inputs = (keras.Input((8, 8, FILTERS)) for _ in range(2))
    y = keras.layers.Conv2D(FILTERS, 3, padding="same")(state)
    update = keras.Model([state, inputs], keras.layers.ReLU()(keras.layers.Add()([y, inputs])))
    stop = ki.stop.UpdateNorm(THRESHOLD, relative=True)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(FILTERS, 3, padding="same")(image)
    x = ki.Iterate(update, max_unroll, stop, settling=settling)(x)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
    return ki.IterativeModel(image, keras.layers.Dense(10)(x))


def _train(settling: float, seed: int, epochs: int, max_unroll: int) -> dict[str, Any]:
    """Return accuracy, mean updates and the share at the limit on the images held out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).reshape(-1, 8, 8, 1).astype(np.float32), labels[order]
    keras.utils.set_random_seed(seed)
    model = make_net(settling, max_unroll)
    steps = epochs * -(-TRAINING // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(images[:TRAINING], labels[:TRAINING], batch_size=BATCH, epochs=epochs, verbose=0)
    found = ki.with_depth(model).predict(images[TRAINING:], verbose=0)
    return {
        "seed": seed,
        "accuracy": float(np.mean(found["logits"].argmax(axis=1) == labels[TRAINING:])),
        "updates": float(found["depth"].mean()),
        "at_limit": float(np.mean(found["status"] != ki.unrolling.Status.CONVERGED)),
    }


def _mean_and_range(runs: list[dict[str, Any]], name: str, form: str) -> str:
    values = [run[name] for run in runs]
    ends = (form.format(end) for end in (min(values), max(values)))
    return f"{form.format(np.mean(values))} ({' to '.join(ends)})"


app = make_command_app(settling_weights)

if __name__ == "__main__":
    app()
