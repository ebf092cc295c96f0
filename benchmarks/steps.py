"""Training steps of Keras models, candidates of benchmarks: by `fit`, or by a compiled step."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import keras
import numpy as np
import tensorflow as tf

from benchmarks import nais_nets, residual_nets
from benchmarks.described_nets import describe_net
from benchmarks.flops import training_flops
from benchmarks.harness.bench import Bench
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.devices import wait_for_device
from benchmarks.random_batches import CLASSES, LEARNING_RATE, MOMENTUM
from iterconv.command_errors import UserError
from training.threads import run_parts_in_parallel

TARGET = "benchmarks.steps:KerasSteps"
TORCH = "benchmarks.torch_steps:TorchSteps"


class KerasSteps:
    """Trains a model of `create_model`, or an equal one of other layers.

    Models with the same name and shapes have equal weights.

    Args:
        name: Name of the model.
        images: A batch, `[N, height, width, 3]`.
        labels: Its labels, `[N]`.
        steps: Number of steps in a run, all on this batch.
        overrides: Settings of the model.
        twin: "" for the model itself, "stock" for one of stock Keras layers, "unrolled" for a
            NAIS-Net with its updates unrolled in the graph.
        bare: Whether to train by a compiled step, without the overhead of `fit`.
        bfloat16: Whether the policy is `mixed_bfloat16`.
        parts: Whether the threads are those of `training.fit`, which runs the loops of some models
            in parts of a batch at the same time.
        options: Arguments of `compile`.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        steps: int = 1,
        overrides: Mapping[str, Any] | None = None,
        twin: str = "",
        bare: bool = False,
        bfloat16: bool = False,
        parts: bool = True,
        options: Mapping[str, Any] | None = None,
    ):
        if parts and not twin:
            run_parts_in_parallel(name)
        keras.utils.set_random_seed(0)
        if bfloat16:
            keras.config.set_dtype_policy("mixed_bfloat16")
        self.model = ki.create_model(name, images.shape[1:], CLASSES, **(overrides or {}))
        self.net = self._rebuilt(twin)
        make = bare_steps if bare else fit_steps
        self.run = make(self.net, images, labels, steps, **(options or {}))

    def _rebuilt(self, twin: str) -> keras.Model:
        if not twin:
            return self.model
        if twin == "unrolled":
            return nais_nets.unrolled_twin(self.model)
        blocks = ki.iterated_blocks(self.model)
        tied = isinstance(blocks[0], ki.NAISConv2D)
        return (nais_nets if tied else residual_nets).stock_twin(self.model)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images in inference."""
        return np.asarray(self.net(images, training=False))

    def described(self) -> list[dict[str, Any]]:
        """Return the model with its weights, for PyTorch."""
        return describe_net(self.model)

    def flops(self) -> int:
        """Return the number of operations of a training step for one image."""
        return training_flops(self.model)

    def updates(self) -> int:
        """Return the number of updates for one image."""
        return ki.processing_depth(self.model)

    def converge_caps(self) -> float:
        """Return the seconds in which the caps of the model converge."""
        begin = time.perf_counter()
        self.model.converge_caps()
        return time.perf_counter() - begin


class StepClock(keras.callbacks.Callback):
    """Measures the time from the start of an epoch to the end of its last step.

    The convergence of the caps at the end of an epoch is thus not measured.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.params["steps"]:
            wait_for_device()
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


def torch_twin(bench: Bench, ours: Candidate, **settings: Any) -> Candidate:
    """Return the candidate that trains the net of `ours` in PyTorch on the same batch.

    Args:
        bench: The processes; that of `ours` describes its net.
        ours: A candidate `KerasSteps`, of a model that PyTorch can rebuild.
        **settings: Further arguments of `TorchSteps`.
    """
    given = {name: ours.arguments[name] for name in ("images", "labels", "steps")}
    return Candidate(TORCH, {"described": bench.ask(ours, "described"), **given, **settings})


def check_equal(
    bench: Bench,
    candidates: Mapping[str, Candidate],
    images: np.ndarray,
    tolerance: float = 1e-3,
) -> None:
    """Compare the logits of all candidates with those of the first.

    Args:
        bench: The processes.
        candidates: Candidates with a method `logits`, by name.
        images: Test images.
        tolerance: Largest difference, relative to a logit and to the largest one.

    Raises:
        UserError: The logits differ.
    """
    (first, ours), *others = candidates.items()
    expected = bench.ask(ours, "logits", images=images)
    scale = np.abs(expected).max()
    for name, candidate in others:
        out = bench.ask(candidate, "logits", images=images)
        if not np.allclose(out, expected, rtol=tolerance, atol=tolerance * scale):
            raise UserError(f"{name!r} must have the logits of {first!r}, {expected}: {out}")
