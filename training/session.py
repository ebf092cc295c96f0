"""One training run, from its settings to its result."""

import contextlib
import dataclasses
import os
import platform
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

import keras_iterconv as ki
from keras_iterconv.models.traced_depth import TracedDepth

from .callbacks import EpochLines, Record
from .checkpoint import load_checkpoint, save_checkpoint
from .datasets import (
    ImageData,
    Split,
    evaluation_batches,
    get_augmentation,
    load_dataset,
    steps_per_epoch,
    training_batches,
)
from .distribution import make_strategy
from .errors import UserError, as_user_error
from .evaluation import Evaluation, evaluate
from .objectives import make_loss, make_metrics
from .optimization import make_optimizer
from .report import plot_curves, print_header, print_result
from .run_folder import RunFolder
from .settings import Settings

# Images a batch where indices and depth are measured.
MEASURE_BATCH = 256


def start(settings: Settings, output: str | None, console: Console) -> dict[str, Any]:
    """Train a new model and return its result.

    Args:
        settings: The run.
        output: The run's folder, new or empty; None for a numbered one under `runs/`.
        console: Where the table and the progress are written.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: The settings ask for something that cannot be, or the folder is taken.
    """
    if output is not None:
        RunFolder.refuse_taken(output)
    session = _Session(settings, console)
    folder = RunFolder.create(output, f"{settings.model}-{settings.dataset}")
    # The checkpoint first: a folder with a config is a run that can go on.
    save_checkpoint(session.model, folder, folder.last, epochs=0)
    folder.write_json(folder.config, session.describe())
    return session.run(folder, rows=[])


def resume(path: str, console: Console) -> dict[str, Any]:
    """Go on with a run that was cut off, and return its result.

    On one device the final weights are those of a run that was never cut off, bit for bit: they
    depend on the weights, the optimizer's state and the epoch, all of which the checkpoint holds,
    and on shuffles and augmentations that are functions of seed, epoch and image.

    Args:
        path: The run's folder.
        console: Where the table and the progress are written.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: The folder holds no run that could go on, or a damaged checkpoint.
    """
    folder = RunFolder.open(path)
    config = folder.read_config()
    try:
        settings = Settings(**config["settings"])
        data = config["data"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.config} is not this version's ({error!r})") from error
    session = _Session(settings, console)
    if session.describe()["data"] != data:
        raise UserError(
            f"the data set {settings.dataset!r} is not the one that {path} was started on; put its "
            "files back (TFDS_DATA_DIR), or start a new run"
        )
    with session.strategy.scope():
        epochs = load_checkpoint(session.model, folder)
    return session.run(folder, folder.read_history(epochs))


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
    """The data, the strategy and the compiled model of a run."""

    def __init__(self, settings: Settings, console: Console):
        self.settings = settings
        self.console = console
        self.data: ImageData = as_user_error(
            load_dataset,
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
        # Made and called outside of the strategy's scope: the last batch of a part may not divide
        # evenly among replicas.
        self.run_depth = TracedDepth(self.model)

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

    def run(self, folder: RunFolder, rows: list[dict[str, float]]) -> dict[str, Any]:
        """Train the epochs that `rows` does not have, then evaluate and write the result."""
        settings, data = self.settings, self.data
        print_header(self.console, settings, data, self.model, self.strategy, folder)
        validate = (lambda: self._evaluate(data.validation)) if len(data.validation) else None
        record = Record(folder, rows, settings.batch_size, validate)
        lines = EpochLines(self.console, settings.epochs, self.steps, record)
        try:
            if len(rows) < settings.epochs:
                self.model.fit(
                    training_batches(
                        data.train,
                        mean=data.mean,
                        std=data.std,
                        batch_size=settings.batch_size,
                        seed=settings.seed,
                        augment=settings.augment,
                        initial_epoch=len(rows),
                    ),
                    epochs=settings.epochs,
                    initial_epoch=len(rows),
                    steps_per_epoch=self.steps,
                    shuffle=False,
                    callbacks=[
                        record,
                        lines,
                        keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False),
                        *self._depth_loggers(folder),
                    ],
                    verbose=0,
                )
            return self._finish(folder, rows)
        except KeyboardInterrupt:
            lines.stop()
            self.console.print(
                f"Stopped after {len(rows)} of {settings.epochs} epochs; go on with: "
                f"iterconv fit --resume {folder.path}",
                highlight=False,
                soft_wrap=True,
            )
            raise
        finally:
            lines.stop()

    def _evaluate(self, split: Split) -> Evaluation:
        return evaluate(self.run_depth, self.data, split, self.settings.batch_size)

    def _finish(self, folder: RunFolder, rows: list[dict[str, float]]) -> dict[str, Any]:
        settings, data = self.settings, self.data
        parts = {
            part: self._evaluate(getattr(data, part))
            for part in ("train", "validation", "test")
            if len(getattr(data, part))
        }
        test = parts["test"]
        accuracy = {part: evaluation.accuracy for part, evaluation in parts.items()}
        # Nothing chooses among the epochs of a run without a validation part.
        best = max(rows, key=lambda row: row["val_accuracy"]) if "validation" in parts else {}
        result = {
            "model": settings.model,
            "dataset": settings.dataset,
            "epochs": len(rows),
            "parameters": self.model.count_params(),
            "train_accuracy": accuracy["train"],
            "validation_accuracy": accuracy.get("validation"),
            "test_accuracy": accuracy["test"],
            "generalization_gap": accuracy["train"] - accuracy["test"],
            "best_epoch": best.get("epoch"),
            "best_validation_accuracy": best.get("val_accuracy"),
            "adaptive": self._adaptive(),
            "processing_depth": ki.processing_depth(self.model),
            "mean_depth": float(test.depth.mean()),
            "min_depth": int(test.depth.min()),
            "max_depth": int(test.depth.max()),
            "distinct_depths": len(np.unique(test.depth)),
            "share_at_limit": test.share_at_limit,
            "share_not_finite": test.share_not_finite,
            "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
            "seconds": float(sum(row["seconds"] for row in rows)),
            "seed": settings.seed,
            "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, "
            f"{len(tf.config.list_physical_devices('GPU'))} GPUs",
        }
        with folder.replacing(folder.curves) as partial:
            plot_curves(partial, rows, settings, accuracy["test"])
        report = self._measure_indices()
        if report is not None:
            result["indices"] = report.to_dict()
            with folder.replacing(folder.indices) as partial:
                report.plot().savefig(partial, dpi=120)
        # Last of all: a folder with a result is a run that is finished.
        folder.write_json(folder.result, result)
        print_result(self.console, result, report, folder)
        return result

    def _depth_loggers(self, folder: RunFolder) -> list[ki.DepthLogger]:
        """Return what logs the depth of a net that has one, beside the logs of Keras."""
        if not self._adaptive():
            return []
        data = self.data
        watched = data.validation if len(data.validation) else data.train
        batches = evaluation_batches(
            watched, mean=data.mean, std=data.std, batch_size=MEASURE_BATCH
        )
        return [ki.DepthLogger(batches, folder.tensorboard / "depth", run=self.run_depth)]

    def _adaptive(self) -> bool:
        return any(block.threshold is not None for block in ki.iterated_blocks(self.model))

    def _measure_indices(self) -> ki.IndexReport | None:
        """Measure the indices on the test part, of a net that has stages."""
        if not any(isinstance(b, ki.ResidualStage) for b in ki.iterated_blocks(self.model)):
            return None
        test = self.data.test
        self.console.print(f"measuring the indices on {len(test):,} test images", highlight=False)
        batches = evaluation_batches(
            test, mean=self.data.mean, std=self.data.std, batch_size=MEASURE_BATCH
        )
        return ki.measure_indices(self.model, batches)
