"""Training throughput against stock Keras layers and PyTorch: `python -m benchmarks.train_step`."""

import time
from typing import Annotated

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf
import typer

from .residual_nets import stock_twin, torch_twin
from .timing import interleave, matrix_rate, show

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
IMAGE = (32, 32, 3)
CLASSES = 10


@app.command()
def train_step(
    model: Annotated[str, typer.Option(help="One of resnet_w8, 16, 32 and 64.")] = "resnet_w16",
    blocks: Annotated[int, typer.Option(help="Blocks a stage.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps a round.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 7,
    output: Annotated[str | None, typer.Option(help="A JSON file to write.")] = None,
) -> None:
    """Time `fit` of our net, free, coupled and capped, of stock layers, and PyTorch's steps."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, *IMAGE)).astype(np.float32)
    labels = rng.integers(CLASSES, size=batch_size)

    keras.utils.set_random_seed(0)
    ours = ki.create_model(model, IMAGE, CLASSES, blocks=blocks)
    stock, theirs = stock_twin(ours), torch_twin(ours)
    compare(ours, stock, theirs, images)
    nets = {
        "ours": ours,
        "ours, coupling 0.9": ki.create_model(model, IMAGE, CLASSES, blocks=blocks),
        "ours, cap 0.95": ki.create_model(model, IMAGE, CLASSES, blocks=blocks, lipschitz_cap=0.95),
        "stock Keras layers": stock,
    }
    candidates = {"PyTorch, eager": torch_steps(theirs, images, labels, steps)}
    for name, net in nets.items():
        options = {"coupling": 0.9} if "coupling" in name else {}
        candidates[name] = keras_steps(net, images, labels, steps, **options)
    for candidate in candidates.values():
        candidate()
    seconds = interleave(candidates, rounds)
    capped = nets["ours, cap 0.95"]
    begin = time.perf_counter()
    capped.converge_caps()
    end_of_epoch = time.perf_counter() - begin
    title = f"Training {model}, {blocks} blocks a stage, batch {batch_size}, 32x32x3"
    show(title, seconds, steps * batch_size, "PyTorch, eager", output)
    print(f"converging the caps, after each epoch: {end_of_epoch:.1f} s")
    print(f"largest matrix product of this machine: {matrix_rate() / 1e9:.0f} GFLOP/s")


def compare(ours, stock, theirs, images) -> None:
    """Stop where the three nets do not compute the same."""
    import torch

    expected = ours(images[:4]).numpy()
    with torch.no_grad():
        theirs.eval()
        torch_out = theirs(to_torch(images[:4])).numpy()
        theirs.train()
    for name, out in (("stock Keras", stock(images[:4]).numpy()), ("PyTorch", torch_out)):
        if not np.allclose(out, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()):
            raise SystemExit(f"the {name} net computes something else: {out} against {expected}")


def to_torch(images):
    """Return NHWC images as a channels-last tensor."""
    import torch

    moved = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return moved.contiguous(memory_format=torch.channels_last)


class StepClock(keras.callbacks.Callback):
    """Takes the time from the start of an epoch to the end of its last step.

    What a net with caps does once at the end of an epoch belongs to the epoch, however long.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.begin


def keras_steps(model, images, labels, steps, **options):
    """Return a function that trains an epoch by `fit` and returns the seconds of its steps."""
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(steps)
    settings = tf.data.Options()
    # Autotuning stalls for seconds whenever an iterator is made.
    settings.autotune.enabled = False
    data = data.prefetch(2).with_options(settings)

    def run():
        clock = StepClock()
        model.fit(data, shuffle=False, verbose=0, callbacks=[clock])
        return clock.seconds

    return run


def torch_steps(net, images, labels, steps):
    """Return a function that trains some steps in PyTorch's eager mode."""
    import torch

    x, y = to_torch(images), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()

    return run


if __name__ == "__main__":
    app()
