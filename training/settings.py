"""What a run is: every choice that decides its result, and the defaults that fit the data."""

import dataclasses
import math
from typing import Any

from iterconv.command_errors import UserError
from keras_iterconv._support.checks import LARGEST, SMALLEST, unknown_name
from keras_iterconv.datasets import AUGMENTATIONS, CATALOGUE, PIXELS, VALIDATION_SHARE
from keras_iterconv.models.registry import (
    ARCHITECTURES,
    CONVOLUTIONAL,
    FULLY_CONNECTED,
    list_settings,
)

from .presets import PRESETS

SCHEDULES = ("cosine", "step", "step-twice", "constant", "cyclical")
STRATEGIES = ("none", "mirrored")
# Without it the first steps at a useful learning rate throw a net of 540 updates out of the region
# where it trains.
CLIP_NORM = 5.0
_OVERRIDES = (
    "max_unroll",
    "threshold",
    "step_size",
    "gradient",
    "blocks",
    "lipschitz_cap",
    "shared_initialization",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one run, as `config.json` keeps them.

    Attributes:
        model: A name of `keras_iterconv.list_models()`.
        dataset: A name of `keras_iterconv.datasets.list_datasets()`.
        epochs: Passes over the training part.
        batch_size: Images a step, over all replicas.
        learning_rate: The largest learning rate.
        schedule: How the learning rate goes down; see `training.optimization`.
        weight_decay: Decoupled: in each step kernels lose this times the learning rate of
            themselves. Decay in the gradient, before momentum, of a tenth of the number has the
            same effect at momentum 0.9.
        clip_norm: The norm of the gradient, over all weights, that a longer one is cut back to; 0
            for no limit.
        augment: How training images are varied; see `keras_iterconv.datasets.augmentation`.
        pixels: `"standardized"` by mean and standard deviation of the training part, or `"unit"`,
            values from 0 to 1.
        validation_share: The share of the official training part that validates; 0 to train on
            all images and validate on none.
        mixed_precision: Half precision products: float16 on a GPU, bfloat16 on a CPU.
        strategy: `"none"`, or `"mirrored"` for all GPUs or, without one, two logical CPUs.
        seed: Seeds the weights, the order of the images and their augmentation.
        max_unroll: None for the model's own number.
        threshold: None for the model's own.
        step_size: None for the model's own.
        gradient: None for the model's own, else how the backward pass of its blocks runs.
        blocks: None for the model's own number of blocks a stage.
        lipschitz_cap: None for the model's own, else mu of every residual function.
        coupling: None, or lambda of the gradient coupling.
        shared_initialization: Whether the blocks of a stage start from the same kernels; None: as
            Lippl et al. train, where there is a coupling, of strength 0 too.
        limit_train: None, or how many training images to use.
    """

    model: str
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip_norm: float = CLIP_NORM
    augment: str = "none"
    pixels: str = "standardized"
    validation_share: float = VALIDATION_SHARE
    mixed_precision: bool = False
    strategy: str = "none"
    seed: int = 0
    max_unroll: int | None = None
    threshold: float | None = None
    step_size: float | None = None
    gradient: str | None = None
    blocks: int | None = None
    lipschitz_cap: float | None = None
    coupling: float | None = None
    shared_initialization: bool | None = None
    limit_train: int | None = None

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
                raise UserError(f"--{_flag(name)} must be 0 or more: {getattr(self, name)}")
        if self.coupling is not None and not 0 <= self.coupling <= 1:
            raise UserError(f"--coupling must be from 0 to 1: {self.coupling}")
        if self.weight_decay * self.learning_rate >= 1:
            raise UserError(
                f"--weight-decay must be below 1 / --learning-rate, {1 / self.learning_rate:g}: a "
                f"step would take all of a kernel away: {self.weight_decay:g}"
            )
        # Clipping divides by its norm.
        for name, most in (
            ("learning_rate", LARGEST),
            ("weight_decay", LARGEST),
            ("clip_norm", 1 / SMALLEST),
        ):
            value = getattr(self, name)
            if value and not SMALLEST <= value <= most:
                raise UserError(
                    f"--{_flag(name)} must be from {SMALLEST:.3g} to {most:.3g}, for float32 "
                    f"makes 0 or infinity of it otherwise: {value:g}"
                )
        if not 0 <= self.validation_share < 1:
            raise UserError(
                f"--validation-share must be 0, or a share below 1: {self.validation_share}"
            )
        for name, known in (
            ("schedule", SCHEDULES),
            ("strategy", STRATEGIES),
            ("augment", AUGMENTATIONS),
            ("pixels", PIXELS),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"--{_flag(name)} must be one of {', '.join(known)}: {getattr(self, name)}"
                )

    def overrides(self) -> dict[str, Any]:
        """Return the settings that go to `keras_iterconv.create_model`.

        Raises:
            UserError: The model has no such setting.
        """
        names = (*_OVERRIDES, "coupling")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        known = _settings_of(self.model)
        if "shared_initialization" in known:
            # Such a net has stages, whose blocks can be coupled.
            known.append("coupling")
        for name, value in given.items():
            if self.model in ARCHITECTURES and name not in known:
                flag = "independent-initialization" if value is False else _flag(name)
                taken = ", ".join(f"--{_flag(other)}" for other in names if other in known)
                raise UserError(f"--{flag} is no option of {self.model}, which takes {taken}")
        if given.pop("coupling", None) is not None:
            given.setdefault("shared_initialization", True)
        return given


def _settings_of(model: str) -> list[str]:
    """Return the settings of an architecture, none for a name that there is not."""
    return list_settings(model) if model in ARCHITECTURES else []


def _flag(name: str) -> str:
    return name.replace("_", "-")


# Measured on two cores; `docs/training.md` has the results that these settings reach.
_DEFAULTS = {
    CONVOLUTIONAL: {"batch_size": 64, "learning_rate": 0.05},
    FULLY_CONNECTED: {"batch_size": 128, "learning_rate": 0.02},
}


def make_settings(preset: str | None = None, **given) -> Settings:
    """Complete what the user gave: with the preset, then with defaults that fit the data set.

    Args:
        preset: A name of `PRESETS`, or None.
        **given: Fields of `Settings`; None counts as not given, and what is given wins.

    Returns:
        The whole of the settings.

    Raises:
        UserError: The preset is unknown, no model is named, or a value is out of its range.
    """
    if preset is not None and preset not in PRESETS:
        raise UserError(unknown_name("preset", preset, PRESETS))
    chosen = dict(PRESETS.get(preset, {}))
    chosen.update({name: value for name, value in given.items() if value is not None})
    if "model" not in chosen:
        raise UserError("--model or --preset must be given, for example --model nais10")
    chosen.setdefault("dataset", "digits")
    return Settings(**{**_defaults(chosen["model"], chosen["dataset"]), **chosen})


def default_settings(settings: Settings) -> dict[str, Any]:
    """Return what settings are where the command names the model, and the data set if another."""
    default = dataclasses.asdict(make_settings(model=settings.model, dataset=settings.dataset))
    return {**default, "dataset": make_settings(model=settings.model).dataset}


def _defaults(model: str, dataset: str) -> dict[str, Any]:
    # An unknown name is refused by what builds or reads it, with the names that there are.
    architecture = ARCHITECTURES.get(model, ARCHITECTURES["nais10"])
    data = CATALOGUE.get(dataset, CATALOGUE["digits"])
    kind = architecture.kind
    epochs = data.epochs[kind]
    if "threshold" in architecture.settings:
        epochs = data.epochs.get("adaptive", epochs)
    augment = "standard" if data.augmented and kind == CONVOLUTIONAL else "none"
    return {**_DEFAULTS[kind], "epochs": epochs, "augment": augment}
