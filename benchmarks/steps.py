"""Functions that run training steps to be timed: by `fit`, by a compiled step, and in PyTorch."""

import time
from collections.abc import Callable
from typing import Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf

CLASSES = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9


def random_batch(batch_size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random square images of three channels, float32, and random labels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, side, side, 3)).astype(np.float32)
    return images, rng.integers(CLASSES, size=batch_size)


def copy_of(model: keras.Model, name: str, **overrides: Any) -> ki.IterativeModel:
    """Return a model of `create_model(name)` with other settings and the weights of `model`."""
    twin = ki.create_model(name, model.input_shape[1:], model.output_shape[-1], **overrides)
    twin.set_weights(model.get_weights())
    return twin


class StepClock(keras.callbacks.Callback):
    """Measures the time from the start of an epoch to the end of its last step.

    The convergence of the caps at the end of an epoch is thus not measured.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.begin


def _optimizer():
    return keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit_steps(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, steps: int, **options: Any
) -> Callable[[], float]:
    """Return a function that trains one epoch by `fit` and returns the seconds of its steps.

    Args:
        model: A model that is not compiled.
        images: A batch.
        labels: The labels of the batch.
        steps: Number of steps in an epoch, all on this batch.
        **options: Arguments of `compile`.
    """
    model.compile(_optimizer(), _loss(), **options)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(steps)
    settings = tf.data.Options()
    # Autotuning takes seconds for each new iterator.
    settings.autotune.enabled = False
    data = data.prefetch(2).with_options(settings)

    def run():
        clock = StepClock()
        model.fit(data, shuffle=False, verbose=0, callbacks=[clock])
        return clock.seconds

    return run


def bare_steps(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, steps: int
) -> Callable[[], None]:
    """Return a function that trains by a compiled step, without the overhead of `fit`."""
    loss, optimizer, variables = _loss(), _optimizer(), model.trainable_variables
    optimizer.build(variables)
    x, y = tf.constant(images), tf.constant(labels)

    @tf.function(reduce_retracing=True)
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    def run():
        for _ in range(steps):
            value = step(x, y)
        value.numpy()

    return run


def torch_steps(net: Any, images: np.ndarray, labels: np.ndarray, steps: int) -> Callable[[], None]:
    """Return a function that trains a PyTorch model in eager mode, with its projections."""
    import torch

    from .torch_layers import to_torch

    x, y = to_torch(images), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    loss = torch.nn.CrossEntropyLoss()
    projected = [module for module in net.modules() if hasattr(module, "project")]

    def run():
        net.train()
        for _ in range(steps):
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()
            for module in projected:
                module.project()

    return run


def check_equal(ours: keras.Model, others: dict[str, Callable], images: np.ndarray) -> None:
    """Raise `SystemExit` if another implementation does not have the outputs of our model.

    Args:
        ours: Our model.
        others: Functions from images to logits, by name.
        images: Test images.

    Raises:
        SystemExit: The logits differ.
    """
    expected = ours(images, training=False).numpy()
    scale = np.abs(expected).max()
    for name, function in others.items():
        out = np.asarray(function(images))
        if not np.allclose(out, expected, rtol=1e-3, atol=1e-3 * scale):
            raise SystemExit(f"{name} must have the logits {expected}, but has {out}")
