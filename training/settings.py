"""The settings that determine the result of a run, and their defaults."""

import dataclasses
import math
import re
from typing import Any

from iterconv.command_errors import UserError, as_user_error, check_folder
from keras_iterconv._support.checks import LARGEST, SMALLEST, unknown_name
from keras_iterconv.coupling import KERNELS, GradientCoupling
from keras_iterconv.datasets import (
    AUGMENTATIONS,
    PIXELS,
    TEST_SHARE,
    VALIDATION_SHARE,
    folder_dataset_name,
)
from keras_iterconv.depth import UnrollSchedule
from keras_iterconv.depth.budget import make_budget
from keras_iterconv.models.registry import ARCHITECTURES, list_settings

from .data_defaults import default_dataset, settings_for
from .presets import PRESETS

SCHEDULES = ("cosine", "step", "step-twice", "triangle", "constant", "cyclical")
OPTIMIZERS = ("sgd", "adam")
STRATEGIES = ("none", "mirrored", "multiworker")
# Without clipping, a model of 540 updates diverges in its first steps at a useful learning rate.
CLIP_NORM = 5.0
MOMENTUM = 0.9
_OVERRIDES = (
    "width",
    "max_unroll",
    "unroll_schedule",
    "threshold",
    "accuracy_loss",
    "mean_updates",
    "step_size",
    "activation",
    "gradient",
    "settling",
    "blocks",
    "lipschitz_cap",
    "initial_gamma",
    "shared_initialization",
    "synchronized",
)
# Those of blocks whose number of updates can change.
_OF_ADJUSTABLE = ("unroll_schedule", "accuracy_loss", "mean_updates")
# The first and the last block, as in a slice of Python.
_MEMBERS = re.compile(r"(-?\d{1,6})?:(-?\d{1,6})?")
# A side, or a height and a width.
_SIZE = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3})?")
# Epochs and the numbers of updates from them on.
_UNROLLS = re.compile(r"\d{1,9}:\d{1,9}(,\d{1,9}:\d{1,9})*")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one run, as stored in `config.json`.

    Attributes:
        model: A name of `keras_iterconv.list_models()`.
        dataset: A name of `keras_iterconv.datasets.list_datasets()` or of an image classification
            set of TensorFlow Datasets; with `data` the name that `load_folder` gives.
        epochs: Number of passes over the training part.
        batch_size: Number of images in a step, over all replicas.
        learning_rate: The largest learning rate.
        schedule: The learning-rate schedule; see `training.optimization`.
        optimizer: `"sgd"` with momentum, or `"adam"`.
        momentum: Momentum of SGD; the decay of Adam's mean gradient.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Decoupled weight decay of kernels: each step multiplies them by 1 minus this
            number times the learning rate. Decay in the gradient, before momentum, has the same
            effect with a tenth of this number at momentum 0.9.
        clip_norm: The largest 2-norm of the gradient over all weights, to which larger gradients
            are scaled down; 0 for no limit.
        label_smoothing: Share of a label's probability that the loss spreads over all classes.
        augment: The augmentation of training images; see `keras_iterconv.datasets.augmentation`.
        pixels: `"standardized"` by mean and standard deviation of the training part, or `"unit"`
            for values from 0 to 1.
        validation_share: The share of the official training part that is kept for validation; 0 to
            train on all images and validate on none.
        mixed_precision: Whether to compute in half precision: float16 on a GPU, bfloat16 on a CPU.
        strategy: `"none"`; `"mirrored"` for all GPUs or, without a GPU, two logical CPUs; or
            `"multiworker"` for the devices of several processes.
        seed: The seed of the initial weights, the order of the images and their augmentation.
        data: The folder of class folders of pictures; None for a data set that has a name.
        image_size: The size of the images, `"SIDE"` or `"HEIGHTxWIDTH"`, of a data set that is not
            in `list_datasets()`; None for the default of `keras_iterconv.datasets.load`.
        test_share: The share of the pictures for the test part, where the data set has none.
        mirrored_test: Whether the result also holds the test accuracy of the mean of the logits of
            an image and of its mirror image, `test_accuracy_mirrored`.
        width: Number of channels of the first stage; None for the model's own.
        max_unroll: Number of updates of a block; None for the model's own number.
        unroll_schedule: Number of updates of a block by epoch, `"EPOCH:UPDATES,..."` with epochs
            from 0: `"0:1,12:3,15:10"` for 3 from epoch 12 on and 10 from epoch 15 on. The trained
            model has the last number. None for one number in all epochs.
        threshold: Stopping threshold; None for the model's own.
        accuracy_loss: Largest loss of accuracy on the validation part to which the thresholds are
            calibrated after the training; None for no calibration.
        mean_updates: Largest mean number of updates of an image in all blocks to which they are
            calibrated; None for no calibration.
        step_size: Step size h of an update; None for the model's own.
        activation: Activation sigma of an update, `"relu"` or `"tanh"`; None for the model's own.
        gradient: Gradient mode of the blocks; None for the model's own.
        settling: Weight of the loss by which the states learn to settle; None for the model's own.
        blocks: Number of blocks in a stage; None for the model's own.
        lipschitz_cap: The cap mu of every residual function; None for the model's own.
        initial_gamma: Initial scale of the normalisations in residual blocks; None for the model's
            own.
        coupling: Strength lambda of the gradient coupling; None for no coupling.
        coupling_kernel: Kernel of the coupling over the blocks, one of `KERNELS`.
        coupling_members: The blocks of a stage that are coupled, `"FIRST:LAST"` as a slice of
            Python: `"5:"` for all but the first five, `"-8:"` for the last eight; None for all.
        shared_initialization: Whether the blocks of a stage start from the same kernels; None for
            True if `coupling` is given, 0 included, as in Lippl et al.
        synchronized: Whether replicas normalise by the statistics of all their images together;
            None for no.
        limit_train: Number of training images to use; None for all.
        index_images: Number of test images on which the indices of residual stages are measured,
            from the first on; 0 for no indices, None for all images.
    """

    model: str
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str = "cosine"
    optimizer: str = "sgd"
    momentum: float = MOMENTUM
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float = CLIP_NORM
    label_smoothing: float = 0.0
    augment: str = "none"
    pixels: str = "standardized"
    validation_share: float = VALIDATION_SHARE
    mixed_precision: bool = False
    strategy: str = "none"
    seed: int = 0
    data: str | None = None
    image_size: str | None = None
    test_share: float = TEST_SHARE
    mirrored_test: bool = False
    width: int | None = None
    max_unroll: int | None = None
    unroll_schedule: str | None = None
    threshold: float | None = None
    accuracy_loss: float | None = None
    mean_updates: float | None = None
    step_size: float | None = None
    activation: str | None = None
    gradient: str | None = None
    settling: float | None = None
    blocks: int | None = None
    lipschitz_cap: float | None = None
    initial_gamma: float | None = None
    coupling: float | None = None
    coupling_kernel: str = "uniform"
    coupling_members: str | None = None
    shared_initialization: bool | None = None
    synchronized: bool | None = None
    limit_train: int | None = None
    index_images: int | None = None

    def __post_init__(self):
        for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            if not low <= getattr(self, name) < 2**32:
                raise UserError(
                    f"--{_flag(name)} must be from {low} to {2**32 - 1}: {getattr(self, name)}"
                )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"--learning-rate must be a positive number: {self.learning_rate}")
        for name in ("weight_decay", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"--{_flag(name)} must be at least 0: {getattr(self, name)}")
        self._check_depth()
        self._check_coupling()
        if self.weight_decay * self.learning_rate >= 1:
            raise UserError(
                f"--weight-decay must be below 1 / --learning-rate, {1 / self.learning_rate:g}, "
                f"or a step sets the kernels to 0: {self.weight_decay:g}"
            )
        # Clipping divides by the norm, so 1 / norm must be finite in float32.
        for name, largest in (
            ("learning_rate", LARGEST),
            ("weight_decay", LARGEST),
            ("clip_norm", 1 / SMALLEST),
        ):
            value = getattr(self, name)
            if value and not SMALLEST <= value <= largest:
                raise UserError(
                    f"--{_flag(name)} must be from {SMALLEST:.3g} to {largest:.3g}, or it "
                    f"becomes 0 or infinite in float32: {value:g}"
                )
        for name in ("validation_share", "label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"--{_flag(name)} must be at least 0 and below 1: {getattr(self, name)}"
                )
        if not 0 < self.test_share < 1:
            raise UserError(f"--test-share must be above 0 and below 1: {self.test_share}")
        if self.image_size is not None and not _SIZE.fullmatch(self.image_size):
            raise UserError(
                "--image-size must be SIDE or HEIGHTxWIDTH, for example 64 or 48x64: "
                f"{self.image_size}"
            )
        if self.nesterov and (not self.momentum or self.optimizer != "sgd"):
            raise UserError("--nesterov needs --optimizer sgd and a --momentum above 0")
        for name, known in (
            ("schedule", SCHEDULES),
            ("optimizer", OPTIMIZERS),
            ("strategy", STRATEGIES),
            ("augment", AUGMENTATIONS),
            ("pixels", PIXELS),
            ("coupling_kernel", KERNELS),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"--{_flag(name)} must be one of {', '.join(known)}: {getattr(self, name)}"
                )

    def height_and_width(self) -> tuple[int, int] | None:
        """Return the height and the width of the images; None for the default."""
        if self.image_size is None:
            return None
        height, _, width = self.image_size.partition("x")
        return int(height), int(width or height)

    def _check_depth(self) -> None:
        if self.index_images is not None and self.index_images < 0:
            raise UserError(f"--index-images must be at least 0: {self.index_images}")
        if self.unroll_schedule is not None and self.max_unroll is not None:
            raise UserError(
                "--max-unroll and --unroll-schedule exclude each other; the trained model has the "
                "last number of updates of --unroll-schedule"
            )
        self.make_unroll_schedule()  # an error for an invalid text
        if self.budget():
            as_user_error(make_budget, self.accuracy_loss, self.mean_updates)
            if self.accuracy_loss is not None and not self.validation_share:
                raise UserError(
                    "--accuracy-loss needs validation images: give a --validation-share above 0, "
                    "or --mean-updates, for which training images do"
                )

    def budget(self) -> dict[str, Any]:
        """Return the budget to which the depth is calibrated; an empty dict for none."""
        given = {"accuracy_loss": self.accuracy_loss, "mean_updates": self.mean_updates}
        return {name: value for name, value in given.items() if value is not None}

    def _check_coupling(self) -> None:
        if self.coupling is not None and not 0 <= self.coupling <= 1:
            raise UserError(f"--coupling must be from 0 to 1: {self.coupling}")
        changed = self.coupling_kernel != "uniform" or self.coupling_members is not None
        if changed and self.coupling is None:
            raise UserError("--coupling-kernel and --coupling-members need --coupling")
        if self.coupling_members is not None and not _MEMBERS.fullmatch(self.coupling_members):
            raise UserError(
                "--coupling-members must be FIRST:LAST, for example 5: or -8: "
                f"{self.coupling_members!r}"
            )

    def gradient_coupling(self) -> GradientCoupling | None:
        """Return the coupling of the gradients; None for none."""
        if self.coupling is None:
            return None
        members = None
        if self.coupling_members is not None:
            first, last = self.coupling_members.split(":")
            members = slice(int(first) if first else None, int(last) if last else None)
        return GradientCoupling(self.coupling, self.coupling_kernel, members)

    def make_unroll_schedule(self) -> UnrollSchedule | None:
        """Return the callback that sets the number of updates by epoch; None for one number.

        Raises:
            UserError: The text of the schedule is invalid.
        """
        text = self.unroll_schedule
        if text is None:
            return None
        if not _UNROLLS.fullmatch(text):
            raise UserError(
                f"--unroll-schedule must be EPOCH:UPDATES,..., for example 0:1,12:3,15:10: {text!r}"
            )
        schedule: dict[int, int] = {}
        for pair in text.split(","):
            epoch, updates = map(int, pair.split(":"))
            if epoch in schedule:
                raise UserError(f"--unroll-schedule must name each epoch once: {text}")
            schedule[epoch] = updates
        return as_user_error(UnrollSchedule, schedule, names={"schedule": "unroll_schedule"})

    def overrides(self) -> dict[str, Any]:
        """Return the settings that override those of `keras_iterconv.create_model`.

        Raises:
            UserError: The model does not have one of these settings.
        """
        names = (*_OVERRIDES, "coupling")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        known = _settings_of(self.model)
        if "shared_initialization" in known:
            # A model with this setting has stages, whose blocks can be coupled.
            known.append("coupling")
        if _has_adjustable_depth(self.model):
            known += _OF_ADJUSTABLE
        for name, value in given.items():
            if self.model in ARCHITECTURES and name not in known:
                flag = "independent-initialization" if value is False else _flag(name)
                if name == "synchronized":
                    raise UserError(
                        f"--synchronized is of batch normalisation, which {self.model} does not "
                        "have: leave it out"
                    )
                taken = ", ".join(f"--{_flag(other)}" for other in names if other in known)
                raise UserError(f"--{flag} is not an option of {self.model}, which takes {taken}")
        if given.pop("coupling", None) is not None:
            given.setdefault("shared_initialization", True)
        for name in _OF_ADJUSTABLE:
            given.pop(name, None)
        schedule = self.make_unroll_schedule()
        if schedule is not None:
            # The model is the one that training ends with.
            given["max_unroll"] = list(schedule.schedule.values())[-1]
        return given


def _settings_of(model: str) -> list[str]:
    """Return the names of an architecture's settings; an empty list for an unknown name."""
    return list_settings(model) if model in ARCHITECTURES else []


def _has_adjustable_depth(model: str) -> bool:
    """Return whether the blocks of an architecture can change their number of updates."""
    return model in ARCHITECTURES and ARCHITECTURES[model].adjustable


def _flag(name: str) -> str:
    return name.replace("_", "-")


def make_settings(preset: str | None = None, **given: Any) -> Settings:
    """Return the given settings, completed by those of a preset and by defaults for the data set.

    Args:
        preset: A name of `PRESETS`, or None.
        **given: Fields of `Settings`, which override the preset; None counts as not given.

    Returns:
        The complete settings.

    Raises:
        UserError: The preset is unknown, no model is named, or a value is out of range.
    """
    if preset is not None and preset not in PRESETS:
        raise UserError(unknown_name("preset", preset, PRESETS))
    chosen = {
        name: value() if callable(value) else value
        for name, value in (PRESETS[preset] if preset is not None else {}).items()
    }
    chosen.update({name: value for name, value in given.items() if value is not None})
    if "model" not in chosen:
        raise UserError("--model or --preset must be given, for example --model nais10")
    if "data" in chosen:
        check_folder("--data", chosen["data"])
        if given.get("dataset") is not None:
            raise UserError("--data and --dataset exclude each other: name a folder or a data set")
        chosen["dataset"] = folder_dataset_name(chosen["data"])
    chosen.setdefault("dataset", default_dataset(chosen["model"]))
    settings = Settings(**{**settings_for(chosen["model"], chosen["dataset"]), **chosen})
    schedule = settings.make_unroll_schedule()
    # A run that is ended early does not come here: its model keeps the number it was trained with.
    if schedule is not None and max(schedule.schedule) >= settings.epochs:
        raise UserError(
            f"--unroll-schedule must only name epochs below --epochs, {settings.epochs}: "
            f"{settings.unroll_schedule}"
        )
    return settings


def default_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that the command line can leave out.

    These are the defaults for the model and the data set. The data set itself can be left out if
    it is the default one.
    """
    if settings.data is not None:
        default = make_settings(model=settings.model, data=settings.data)
        return {**dataclasses.asdict(default), "dataset": settings.dataset, "data": None}
    default = make_settings(model=settings.model, dataset=settings.dataset)
    return {**dataclasses.asdict(default), "dataset": default_dataset(settings.model)}
