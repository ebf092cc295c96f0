"""`Iterate` around a NAIS update that is written by hand, beside `NAISConv2D`.

Run it by `python -m benchmarks.iterate_cost`.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.measured_tables import show
from iterconv.command_help import make_command_app

from .timing import describe_machine, interleave, speedup

OURS, BY_HAND = "NAISConv2D", "Iterate"


class Step(keras.layers.Layer):
    """x + h relu(A x + v), with v computed outside of the loop."""

    def __init__(self, filters: int, **kwargs: object):
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)

    def build(self, shape: tuple) -> None:
        self.convolution.build(shape)
        self.built = True

    def call(self, state: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        return state + 0.5 * keras.ops.relu(self.convolution(state) + v)


def iterate_cost(
    blocks: Annotated[int, typer.Option(help="Number of blocks in the chain.")] = 3,
    filters: Annotated[int, typer.Option(help="Number of channels.")] = 32,
    side: Annotated[int, typer.Option(help="Height and width of an image, in pixels.")] = 16,
    updates: Annotated[int, typer.Option(help="Number of updates of a block.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Number of images in a batch.")] = 64,
    steps: Annotated[int, typer.Option(help="Number of batches in a round.")] = 4,
    rounds: Annotated[int, typer.Option(help="Number of timed rounds.")] = 11,
    output: Annotated[str | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time training and inference of a chain of blocks, built on either layer.

    Both have the same convolutions, and in training the gradient mode unroll. `NAISConv2D` also
    projects its weights after each step.
    """

    def nais(x):
        return ki.NAISConv2D(filters, max_unroll=updates, step_size=0.5)(x)

    def by_hand(x):
        v = keras.layers.Conv2D(filters, 3, padding="same")(x)
        start = keras.Model(inputs := keras.Input(v.shape[1:]), 0 * inputs)
        return ki.Iterate(Step(filters), updates, initial_state=start)(v)

    shape = (side, side, filters)
    models = {OURS: _chain(nais, blocks, shape), BY_HAND: _chain(by_hand, blocks, shape)}
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(steps * batch_size, *shape)), tf.float32)
    labels = tf.constant(np.arange(len(images)) % 10)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size).cache()
    works = {
        "training": {name: partial(_train, model, batches) for name, model in models.items()},
        "inference": {
            name: partial(_infer, tf.function(model), images, batch_size)
            for name, model in models.items()
        },
    }
    lines: list[list[str]] = []
    content: dict[str, Any] = {"machine": describe_machine()}
    for work, candidates in works.items():
        for run in candidates.values():
            run()
        seconds = interleave(candidates, rounds)
        rates = {name: len(images) / np.median(taken) for name, taken in seconds.items()}
        ratio = speedup(seconds[OURS], seconds[BY_HAND])
        content[work] = {"seconds": seconds, "ratio": ratio}
        lines.append([work, *(f"{rates[name]:.0f}" for name in models), f"{ratio:.2f}"])
    header = ["images per second", *models, "Iterate to NAISConv2D"]
    title = (
        f"{blocks} blocks of {updates} updates, batch {batch_size}, {side}x{side}x{filters}; "
        f"{describe_machine()}"
    )
    show(title, header, lines, content, output)


def _chain(layer: Callable, blocks: int, shape: tuple) -> ki.IterativeModel:
    """Return a compiled classifier with a chain of blocks."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input(shape)
    for _ in range(blocks):
        x = layer(x)
    logits = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    model = ki.IterativeModel(image, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-4), loss)
    return model


def _train(model: ki.IterativeModel, batches: tf.data.Dataset) -> None:
    model.fit(batches, verbose=0)


def _infer(run: Callable, images: tf.Tensor, batch_size: int) -> None:
    for begin in range(0, len(images), batch_size):
        run(images[begin : begin + batch_size], training=False).numpy()


app = make_command_app(iterate_cost)

if __name__ == "__main__":
    app()
