"""`Iterate` around a NAIS update that is written by hand, beside `NAISConv2D`.

Run it by `python -m benchmarks.iterate_cost`.
"""

from typing import Annotated, Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from benchmarks.harness.bench import Bench
from benchmarks.harness.benchmark_options import Device, DeviceOption, OutputOption, RoundsOption
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.measured_tables import show
from iterconv.command_errors import run_command
from iterconv.command_help import make_command_app

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
    rounds: RoundsOption = 11,
    device: DeviceOption = Device.CPU,
    output: OutputOption = None,
) -> None:
    """Time training and inference of a chain of blocks, built on either layer.

    Both have the same convolutions, and in training the gradient mode unroll. `NAISConv2D` also
    projects its weights after each step.
    """
    sizes = {"blocks": blocks, "filters": filters, "side": side, "updates": updates}
    batch = {"batch_size": batch_size, "steps": steps}
    lines: list[list[str]] = []
    content: dict[str, Any] = {}
    with Bench(device) as bench:
        for work in ("training", "inference"):
            candidates = {
                name: Candidate(
                    "benchmarks.iterate_cost:Chain",
                    {"layer": name, **sizes, **batch},
                    {"work": work},
                )
                for name in (OURS, BY_HAND)
            }
            measured = bench.measure(candidates, rounds)
            images = steps * batch_size
            rates = (f"{images / measured.median(name):.0f}" for name in candidates)
            ratio = measured.speedup(OURS, BY_HAND)
            content[work] = {**measured.facts(), "ratio": ratio._asdict()}
            lines.append([work, *rates, f"{ratio.median:.2f}", ratio.interval])
    header = ["images per second", OURS, BY_HAND, "Iterate to NAISConv2D", "95% interval"]
    title = f"{blocks} blocks of {updates} updates, batch {batch_size}, {side}x{side}x{filters}"
    show(title, header, lines, content, output)


class Chain:
    """A compiled classifier with a chain of blocks, trained or run on random images.

    Args:
        layer: `OURS` or `BY_HAND`.
        blocks: Number of blocks.
        filters: Number of channels.
        side: Height and width of an image.
        updates: Number of updates of a block.
        batch_size: Number of images in a batch.
        steps: Number of batches in a run.
    """

    def __init__(
        self,
        layer: str,
        blocks: int,
        filters: int,
        side: int,
        updates: int,
        batch_size: int,
        steps: int,
    ):
        keras.utils.set_random_seed(0)
        x = image = keras.Input((side, side, filters))
        for _ in range(blocks):
            if layer == OURS:
                x = ki.NAISConv2D(filters, max_unroll=updates, step_size=0.5)(x)
            else:
                x = keras.layers.Conv2D(filters, 3, padding="same")(x)
                start = keras.Model(inputs := keras.Input(x.shape[1:]), 0 * inputs)
                x = ki.Iterate(Step(filters), updates, initial_state=start)(x)
        logits = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
        self.model = ki.IterativeModel(image, logits)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.SGD(1e-4), loss)
        self.forward = tf.function(self.model)
        self.batch_size = batch_size
        rng = np.random.default_rng(0)
        values = rng.normal(size=(steps * batch_size, side, side, filters))
        self.images = tf.constant(values, tf.float32)
        labels = tf.constant(np.arange(len(self.images)) % 10)
        data = tf.data.Dataset.from_tensor_slices((self.images, labels))
        self.batches = data.batch(batch_size).cache()

    def run(self, work: str) -> None:
        """Train or run all batches."""
        if work == "training":
            self.model.fit(self.batches, verbose=0)
            return
        for begin in range(0, len(self.images), self.batch_size):
            batch = self.images[begin : begin + self.batch_size]
            self.forward(batch, training=False).numpy()


app = make_command_app(iterate_cost)

if __name__ == "__main__":
    run_command(app, "python -m benchmarks.iterate_cost")
