"""One training run, from its settings to its result."""

import contextlib
import dataclasses
import platform
import shlex
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

import keras_iterconv as ki
from iterconv.command_errors import UserError, as_user_error
from keras_iterconv import datasets
from keras_iterconv.datasets import (
    ImageData,
    Split,
    evaluation_batches,
    get_augmentation,
    steps_per_epoch,
    training_batches,
)
from keras_iterconv.depth.depth_settings import is_adaptive
from keras_iterconv.depth.traced_depth import TracedDepth

from .callbacks import ProgressLines, RunRecorder
from .checkpoint import load_checkpoint, save_checkpoint
from .distribution import make_strategy
from .epoch_state import EpochState, load_epoch_state
from .evaluation import Evaluation, evaluate
from .objectives import make_loss, make_metrics
from .optimization import make_optimizer
from .run_folder import RunFolder
from .run_report import print_header
from .run_result import finish
from .settings import Settings

# Images a batch where indices and depth are measured.
MEASURE_BATCH = 256
# Least time between two checkpoints within an epoch.
CHECKPOINT_MINUTES = 10.0


def start(
    settings: Settings,
    output: str | None,
    console: Console,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> dict[str, Any]:
    """Train a new model and return its result.

    Args:
        settings: The run.
        output: The run's folder, new or empty; None for a numbered one under `runs/`.
        console: Where the table and the progress are written.
        checkpoint_minutes: The least time between two checkpoints within an epoch.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: The settings ask for something that cannot be, or the folder is taken.
    """
    if output is not None:
        RunFolder.refuse_taken(output)
    session = _Session(settings, console)
    folder = RunFolder.create(output, f"{settings.model}-{settings.dataset}")
    with folder.held():
        # The config first: with it alone a run can go on, since the seed gives its first weights.
        folder.write_json(folder.config, session.describe())
        save_checkpoint(session.model, folder, folder.last, epochs=0)
        return session.run(folder, [], None, checkpoint_minutes)


def resume(
    path: str,
    console: Console,
    epochs: int | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> dict[str, Any]:
    """Go on with a run that was cut off, or is to have other epochs, and return its result.

    On one device the final weights are those of a run that was never cut off, bit for bit: they
    depend on the weights, the optimizer's state and the place in the epoch, all of which the
    checkpoints hold, and on shuffles and augmentations that are functions of seed, epoch and image.

    Args:
        path: The run's folder.
        console: Where the table and the progress are written.
        epochs: The new number of epochs, over all of which its schedule of the learning rate is
            stretched; at least the number that is done, with which the run ends there. None for
            the run's own.
        checkpoint_minutes: The least time between two checkpoints within an epoch.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: The folder holds no run that could go on, or a damaged file.
    """
    folder = RunFolder.open(path)
    with folder.held():
        config = folder.read_config()
        settings = config["settings"]
        wanted = settings if epochs is None else dataclasses.replace(settings, epochs=epochs)
        result = folder.read_result()
        if result is not None and result["epochs"] >= wanted.epochs:
            raise UserError(
                f"--resume {path} is finished; its result is in {folder.result}. Give more --epochs"
                f" than {result['epochs']} to train it further"
            )
        session = _Session(wanted, console)
        if session.describe()["data"] != config["data"]:
            raise UserError(
                f"the data set {settings.dataset!r} is not the one that {path} was started on; put "
                "its files back (TFDS_DATA_DIR), or start a new run"
            )
        rows, state = session.load(folder)
        if len(rows) > wanted.epochs:
            raise UserError(
                f"--epochs must be at least {len(rows)}, which {folder.last} has seen: "
                f"{wanted.epochs}"
            )
        if wanted != settings:
            _extend(folder, config, wanted, len(rows), console)
        return session.run(folder, rows, state, checkpoint_minutes)


def _extend(
    folder: RunFolder, config: dict[str, Any], wanted: Settings, done: int, console: Console
) -> None:
    """Give a run another number of epochs; a result that it has stays until it has a new one."""
    before = config["settings"]
    extensions = [*config.get("extensions", []), {"epochs": before.epochs, "done": done}]
    folder.write_json(
        folder.config,
        {**config, "settings": dataclasses.asdict(wanted), "extensions": extensions},
    )
    stretched = (
        ""
        if wanted.schedule == "constant" or done == wanted.epochs
        else (
            f"; the {wanted.schedule} schedule of the learning rate is stretched over all of them"
        )
    )
    console.print(
        f"{done} of now {wanted.epochs} epochs are done, {before.epochs} were planned{stretched}",
        soft_wrap=True,
    )


@contextlib.contextmanager
def _precision(mixed: bool):
    """Build layers under a mixed policy: float16 on a GPU, bfloat16 on a CPU."""
    before = keras.config.dtype_policy()
    if mixed:
        on_gpu = tf.config.list_physical_devices("GPU")
        keras.config.set_dtype_policy("mixed_float16" if on_gpu else "mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _Session:
    """The data, the strategy and the compiled model of a run.

    Attributes:
        settings: The run.
        console: Where it reports.
        data: The data set.
        steps: The number of steps of an epoch.
        strategy: Of `tf.distribute`.
        model: The net, compiled and built.
        run_depth: Runs the net over images, and returns logits, depth and status.
    """

    def __init__(self, settings: Settings, console: Console):
        self.settings = settings
        self.console = console
        self.data: ImageData = as_user_error(
            datasets.load,
            settings.dataset,
            names={"name": "dataset"},
            limit_train=settings.limit_train,
            validation_share=settings.validation_share,
            pixels=settings.pixels,
        )
        self.steps = as_user_error(steps_per_epoch, self.data.train, settings.batch_size)
        # Asked for early, so that an extra that is missing leaves no folder behind.
        get_augmentation(settings.augment)
        self.strategy = make_strategy(settings.strategy, settings.batch_size)
        keras.utils.set_random_seed(settings.seed)
        with self.strategy.scope(), _precision(settings.mixed_precision):
            self.model = as_user_error(
                ki.create_model,
                settings.model,
                self.data.input_shape,
                self.data.num_classes,
                names={"name": "model"},
                **settings.overrides(),
            )
            # In every file of the run: whoever loads one knows how its images are scaled.
            self.model.preprocessing = ki.Preprocessing(
                *(tuple(numbers.tolist()) for numbers in (self.data.mean, self.data.std))
            )
            self.model.class_names = tuple(self.data.classes)
            optimizer = make_optimizer(settings, self.steps, self.model.trainable_variables)
            if self.model.dtype_policy.name == "mixed_float16":
                # Keras would do this by itself, but forget it in the files it writes.
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            as_user_error(
                self.model.compile,
                optimizer,
                make_loss(self.data.multi_label),
                metrics=make_metrics(self.data.multi_label),
                coupling=settings.coupling,
            )
            self.model.optimizer.build(self.model.trainable_variables)
            self._build_metrics()
        # Made and called outside of the strategy's scope: the last batch of a part may not divide
        # evenly among replicas.
        self.run_depth = TracedDepth(self.model)

    def _build_metrics(self) -> None:
        """Make the metrics' variables, which Keras makes in the first step, after the epoch began.

        Those of an interrupted epoch are put back as the epoch begins.
        """
        labels = tf.zeros([1, *self.data.train.labels.shape[1:]], tf.int32)
        logits = tf.zeros([1, self.data.num_classes])
        for metric in self.model.metrics:
            if not getattr(metric, "built", True):
                metric.build(labels, logits)

    def describe(self) -> dict[str, Any]:
        """Return what `config.json` holds: the settings, the data's scale and the versions."""
        return {
            "settings": dataclasses.asdict(self.settings),
            "data": {
                "input_shape": list(self.data.input_shape),
                "classes": list(self.data.classes),
                "scale": self.data.scale,
                "mean": self.data.mean.tolist(),
                "std": self.data.std.tolist(),
                "images": {
                    part: len(getattr(self.data, part).labels)
                    for part in ("train", "validation", "test")
                },
            },
            "versions": {
                "keras_iterconv": ki.__version__,
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "command": sys.argv,
        }

    def load(self, folder: RunFolder) -> tuple[list[dict[str, float]], EpochState | None]:
        """Load the last checkpoint of a run, and return its epochs and the state within the next.

        Raises:
            UserError: A file is missing or damaged.
        """
        if not folder.last.exists():
            for file in (folder.history, folder.within_epoch, folder.best, folder.result):
                if file.exists():
                    raise UserError(
                        f"--resume {folder.path} holds no run that could go on: {folder.last.name} "
                        "is missing"
                    )
            # Killed before its second file: the weights of the seed are the state.
            save_checkpoint(self.model, folder, folder.last, epochs=0)
        with self.strategy.scope():
            epochs = load_checkpoint(self.model, folder)
        rows = folder.read_history(epochs)
        return rows, load_epoch_state(self.model, folder, epochs, self.steps)

    def run(
        self,
        folder: RunFolder,
        rows: list[dict[str, float]],
        state: EpochState | None,
        checkpoint_minutes: float,
    ) -> dict[str, Any]:
        """Train the epochs that `rows` does not have, then evaluate and write the result.

        Args:
            folder: The run's folder.
            rows: The epochs that are done.
            state: Where in the next epoch the run was cut off, None for its beginning.
            checkpoint_minutes: The least time between two checkpoints within an epoch.
        """
        settings = self.settings
        print_header(self.console, settings, self.data, self.model, self.strategy, folder)
        record = RunRecorder(self, folder, rows, state, checkpoint_minutes)
        lines = ProgressLines(self.console, settings.epochs, self.steps, record)
        callbacks = [
            record,
            lines,
            keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False),
            *self._depth_loggers(folder),
        ]
        try:
            if state is not None:
                # Keras has one number of steps for all epochs of a call.
                self._train(len(rows) + 1, callbacks, len(rows), state.steps)
            if len(rows) < settings.epochs:
                self._train(settings.epochs, callbacks, len(rows))
            return finish(self, folder, rows)
        except KeyboardInterrupt:
            lines.stop()
            self.console.print(
                f"Stopped after {len(rows)} of {settings.epochs} epochs; go on with: "
                f"iterconv fit --resume {shlex.quote(str(folder.path))}",
                soft_wrap=True,
            )
            raise
        finally:
            lines.stop()

    def _train(self, epochs: int, callbacks: list, initial_epoch: int, step: int = 0) -> None:
        """Train up to a number of epochs, from a step of an epoch on."""
        self.model.fit(
            self.training_batches(initial_epoch, step),
            epochs=epochs,
            initial_epoch=initial_epoch,
            steps_per_epoch=self.steps - step,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )

    def training_batches(self, epoch: int, step: int = 0) -> tf.data.Dataset:
        """Return the batches from a step of an epoch on, both counted from 0."""
        settings, data = self.settings, self.data
        return training_batches(
            data.train,
            mean=data.mean,
            std=data.std,
            batch_size=settings.batch_size,
            seed=settings.seed,
            augment=settings.augment,
            initial_epoch=epoch,
            initial_step=step,
        )

    def evaluate(self, split: Split) -> Evaluation:
        """Run the net over a part of the data set."""
        return evaluate(self.run_depth, self.data, split, self.settings.batch_size)

    def measure_batches(self, split: Split) -> tf.data.Dataset:
        """Return the batches that indices and depth are measured on."""
        return evaluation_batches(
            split, mean=self.data.mean, std=self.data.std, batch_size=MEASURE_BATCH
        )

    def _depth_loggers(self, folder: RunFolder) -> list[ki.DepthLogger]:
        """Return what logs the depth of a net that has one, beside the logs of Keras."""
        if not is_adaptive(self.model):
            return []
        watched = self.data.validation if len(self.data.validation) else self.data.train
        batches = self.measure_batches(watched)
        return [ki.DepthLogger(batches, folder.tensorboard / "depth", run=self.run_depth)]
