"""One training run, from its settings to its result."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

import keras_iterconv as ki
from iterconv.command_errors import UserError, as_user_error
from keras_iterconv.datasets import (
    ImageData,
    Split,
    evaluation_batches,
    get_augmentation,
    steps_per_epoch,
    training_batches,
)
from keras_iterconv.depth.depth_settings import is_adaptive
from keras_iterconv.depth.evaluation import Evaluation, evaluate, mirrored_accuracy
from keras_iterconv.depth.traced_depth import TracedDepth
from keras_iterconv.runs import plain_name

from .callbacks import RunRecorder
from .checkpoint import load_checkpoint, save_checkpoint
from .distribution import (
    folder_of_worker,
    is_chief,
    make_strategy,
    share_batches,
    watching_workers,
)
from .epoch_state import EpochState, load_epoch_state
from .extension import extend
from .interruption import Interruption
from .optimization import make_optimizer
from .preparation_of_model import build_metrics, whiten_from
from .progress_lines import ProgressLines
from .run_data import describe_run, fit_batch, load_data, refuse_unreadable
from .run_folder import RunFolder
from .run_report import print_header
from .run_result import finish_together
from .settings import Settings
from .threads import run_parts_in_parallel
from .worker_checks import check_same_run, check_same_settings

# Number of images in a batch for the measurement of indices and depth.
MEASURE_BATCH = 256
# Least time between two checkpoints within an epoch, in minutes.
CHECKPOINT_MINUTES = 10.0


def start(
    settings: Settings,
    output: str | None,
    console: Console,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    choose_batch: bool = False,
) -> dict[str, Any]:
    """Train a new model and return its result.

    Args:
        settings: The settings of the run.
        output: The run's folder, new or empty; None for a numbered one under `runs/`.
        console: The console for the table and the progress.
        checkpoint_minutes: Least time between two checkpoints within an epoch, in minutes.
        choose_batch: Whether the batch size is a default, which is lowered for few images.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: A setting is invalid, or the folder is in use.
    """
    chief = is_chief(settings.strategy)
    if chief and output is not None:
        RunFolder.refuse_taken(output)
    console = console if chief else Console(quiet=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(watching_workers(settings.strategy))
        session = _Session(settings, console, choose_batch=choose_batch)
        if chief:
            folder = RunFolder.create(output, plain_name(settings.model, settings.dataset, "-"))
            stack.enter_context(folder.held())
        else:
            folder = stack.enter_context(folder_of_worker(None))
        # The config comes first: it is enough to resume, since the seed gives the first weights.
        folder.write_json(folder.config, describe_run(session.settings, session.data))
        save_checkpoint(session.model, folder, folder.last, epochs=0)
        return session.run(folder, [], None, checkpoint_minutes)


def resume(
    path: str,
    console: Console,
    epochs: int | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> dict[str, Any]:
    """Continue an interrupted run, or a run with a new number of epochs, and return its result.

    On one device the final weights equal those of an uninterrupted run, bit for bit. They depend
    on the weights, the optimizer's state and the step within the epoch, which are in the
    checkpoints, and on shuffles and augmentations, which are functions of seed, epoch and image.

    Args:
        path: The run's folder.
        console: The console for the table and the progress.
        epochs: The new number of epochs; None for the run's own number. The schedule of the
            learning rate is stretched over all of them. The finished epochs are the least number,
            with which the run ends there.
        checkpoint_minutes: Least time between two checkpoints within an epoch, in minutes.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: The folder holds no run that can be continued, or a damaged file.
    """
    folder = RunFolder.open(path)
    with contextlib.ExitStack() as stack:
        # Before the lock is taken, which the chief alone takes. Another process writes the file
        # only while it holds the lock, for a whole training.
        config = folder.read_config()
        settings = config["settings"]
        stack.enter_context(watching_workers(settings.strategy))
        if is_chief(settings.strategy):
            stack.enter_context(folder.held())
        else:
            # Before the strategy is made, for which the chief waits before it changes a file.
            folder, console = stack.enter_context(folder_of_worker(path)), Console(quiet=True)
        wanted = settings if epochs is None else dataclasses.replace(settings, epochs=epochs)
        result = folder.read_result()
        if result is not None and result["epochs"] >= wanted.epochs:
            raise UserError(
                f"--resume {path} is finished; its result is in {folder.result}. Give more --epochs"
                f" than {result['epochs']} to train further"
            )
        session = _Session(wanted, console)
        if describe_run(session.settings, session.data)["data"] != config["data"]:
            place = settings.data or "TFDS_DATA_DIR"
            raise UserError(
                f"the data set {settings.dataset!r} is not the one that {path} was started with; "
                f"restore its files ({place}), or start a new run"
            )
        rows, state = session.load(folder)
        check_same_run(session.strategy, session.model, len(rows), state, path)
        if len(rows) > wanted.epochs:
            raise UserError(
                f"--epochs must be at least {len(rows)}, the finished epochs in {folder.last}: "
                f"{wanted.epochs}"
            )
        if wanted != settings:
            config = extend(folder, config, wanted, len(rows), console)
        extensions = config.get("extensions", ())
        return session.run(folder, rows, state, checkpoint_minutes, extensions)


def build_model(settings: Settings, data: ImageData) -> ki.IterativeModel:
    """Return the compiled model of a run as it is before the first step.

    Args:
        settings: The settings of the run.
        data: The data set, in place of the one that the settings name.
    """
    return _Session(settings, Console(quiet=True), data).model


@contextlib.contextmanager
def _precision(mixed: bool) -> Iterator[None]:
    """Build layers under a mixed-precision policy: float16 on a GPU, bfloat16 on a CPU."""
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
        settings: The settings of the run.
        console: The console for the table and the progress.
        data: The data set.
        steps: The number of steps of an epoch.
        strategy: The `tf.distribute` strategy.
        model: The compiled and built model.
        unroll_schedule: The callback that sets the number of updates by epoch, or None.
        run_depth: A function from images to logits, depth and status.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        data: ImageData | None = None,
        choose_batch: bool = False,
    ):
        self.console = console
        run_parts_in_parallel(settings.model)
        # Before the data set, whose reader may run operations of TensorFlow.
        self.strategy = make_strategy(settings.strategy)
        self.data: ImageData = load_data(settings, console) if data is None else data
        if choose_batch:
            settings = fit_batch(settings, len(self.data.train))
        self.settings = settings
        self.steps = as_user_error(steps_per_epoch, self.data.train, settings.batch_size)
        # Called early, so that a missing extra is reported before a folder is created.
        get_augmentation(settings.augment)
        described = {**describe_run(settings, self.data), "command": None}
        check_same_settings(self.strategy, described)
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
            # Saved in each model file of the run, so that it holds the scale of its images.
            self.model.preprocessing = ki.Preprocessing(
                *(tuple(numbers.tolist()) for numbers in (self.data.mean, self.data.std))
            )
            self.model.class_names = tuple(self.data.classes)
            whiten_from(self.model, self.data)
            optimizer = make_optimizer(settings, self.steps, self.model.trainable_variables)
            if self.model.dtype_policy.name == "mixed_float16":
                # Keras would add this itself, but leave it out of the files that it writes.
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            as_user_error(
                self.model.compile,
                optimizer,
                self._make_loss(),
                metrics=self.data.task.make_metrics(),
                coupling=settings.gradient_coupling(),
            )
            self.model.optimizer.build(self.model.trainable_variables)
            build_metrics(self.model, self.data)
        self.unroll_schedule = settings.make_unroll_schedule()
        # Outside of the strategy's scope: the last batch of a part may not divide evenly among the
        # replicas.
        self.run_depth = TracedDepth(self.model)

    def _make_loss(self) -> keras.losses.Loss:
        smoothing = self.settings.label_smoothing
        # Without smoothing no argument: the loss of a regression has none.
        return self.data.task.make_loss(**({"label_smoothing": smoothing} if smoothing else {}))

    def load(self, folder: RunFolder) -> tuple[list[dict[str, float]], EpochState | None]:
        """Load the last checkpoint; return its history and the state within the next epoch.

        Raises:
            UserError: A file is missing or damaged.
        """
        if not folder.last.exists():
            for file in (folder.history, folder.within_epoch, folder.best, folder.result):
                if file.exists():
                    raise UserError(
                        f"--resume {folder.path} holds no run that can be continued: "
                        f"{folder.last.name} is missing"
                    )
            # The run was killed before it wrote its second file: its weights are those of the seed.
            save_checkpoint(self.model, folder, folder.last, epochs=0)
        with self.strategy.scope():
            epochs = load_checkpoint(self.model, folder)
        rows = folder.read_history(epochs)
        if epochs >= self.settings.epochs:
            # What was done of a further epoch belongs to a longer run.
            return rows, None
        return rows, load_epoch_state(self.model, folder, epochs, self.steps)

    def run(
        self,
        folder: RunFolder,
        rows: list[dict[str, float]],
        state: EpochState | None,
        checkpoint_minutes: float,
        extensions: Sequence[Mapping[str, int]] = (),
    ) -> dict[str, Any]:
        """Train the remaining epochs, then evaluate and return the result.

        Args:
            folder: The run's folder.
            rows: The measures of the finished epochs.
            state: The state within the next epoch; None for its beginning.
            checkpoint_minutes: Least time between two checkpoints within an epoch, in minutes.
            extensions: The `extensions` of `config.json`.
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
            *([] if self.unroll_schedule is None else [self.unroll_schedule]),
        ]
        try:
            if state is not None:
                # A call of `fit` has one number of steps for all its epochs.
                self._train(len(rows) + 1, callbacks, len(rows), state.steps)
            if len(rows) < settings.epochs:
                self._train(settings.epochs, callbacks, len(rows))
            if self.unroll_schedule is not None:
                # A run can end before the last number of updates, and be evaluated after a restart.
                ki.set_depth(self.model, self.unroll_schedule.max_unroll_of(len(rows) - 1))
            return finish_together(self, folder, rows, extensions)
        except tf.errors.OpError as error:
            refuse_unreadable(self.data, error, folder.path)
            raise
        except KeyboardInterrupt:
            lines.stop()
            self.console.print(
                f"Stopped after {len(rows)} of {settings.epochs} epochs; continue with: "
                f"iterconv fit --resume {shlex.quote(str(folder.path))}",
                soft_wrap=True,
            )
            raise
        finally:
            lines.stop()

    def _train(self, epochs: int, callbacks: list, initial_epoch: int, step: int = 0) -> None:
        """Train up to a number of epochs, starting at a step of epoch `initial_epoch`."""
        interruption = Interruption()
        with interruption.watching():
            self.model.fit(
                share_batches(self.strategy, self.training_batches, initial_epoch, step),
                epochs=epochs,
                initial_epoch=initial_epoch,
                steps_per_epoch=self.steps - step,
                shuffle=False,
                callbacks=[*callbacks, interruption],
                verbose=0,
            )

    def training_batches(self, epoch: int, step: int = 0, **shares: Any) -> tf.data.Dataset:
        """Return the training batches that start at a step of an epoch, both counted from 0.

        Args:
            epoch: The epoch.
            step: The step.
            **shares: `replicas` and `of`, as for `keras_iterconv.datasets.training_batches`.
        """
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
            **shares,
        )

    def comparable(self, rows: list[dict[str, float]]) -> list[dict[str, float]]:
        """Return the rows of the epochs that had the number of updates of the last one.

        The best epoch is one of these: the best model has the depth of the trained model.
        """
        if self.unroll_schedule is None or not rows:
            return rows
        return rows[self.unroll_schedule.start_of(len(rows) - 1) :]

    def evaluate(self, split: Split) -> Evaluation:
        """Return the results of the model on a part of the data set."""
        return evaluate(self.run_depth, self.data, split, self.settings.batch_size)

    def mirrored_accuracy(self, split: Split) -> float:
        """Return the accuracy of the mean of the logits of images and their mirror images."""
        return mirrored_accuracy(self.run_depth, self.data, split, self.settings.batch_size)

    def measure_batches(self, split: Split) -> tf.data.Dataset:
        """Return the batches for the measurement of indices and depth."""
        return evaluation_batches(
            split, mean=self.data.mean, std=self.data.std, batch_size=MEASURE_BATCH
        )

    def _depth_loggers(self, folder: RunFolder) -> list[ki.DepthLogger]:
        """Return the callback that logs the depth, for a model of adaptive depth."""
        if not is_adaptive(self.model):
            return []
        watched = self.data.validation if len(self.data.validation) else self.data.train
        batches = self.measure_batches(watched)
        return [ki.DepthLogger(batches, folder.tensorboard / "depth", run=self.run_depth)]
