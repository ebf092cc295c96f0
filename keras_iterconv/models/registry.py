"""The registry of architectures by name."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from keras_iterconv._support.architecture_kinds import (
    CONVOLUTIONAL,
    FULLY_CONNECTED,
    RECURRENT,
)
from keras_iterconv._support.checks import check_channels_last, check_positive_int, unknown_name
from keras_iterconv.layers import NAISConv2D, NAISDense, ResidualStage
from keras_iterconv.models.deep_thinking_net import deep_thinking_net
from keras_iterconv.models.fast_net import nais_fast_net
from keras_iterconv.models.nais_net import nais_dense_net, nais_net
from keras_iterconv.models.resnet import residual_net, resnet54, resnet_dense
from keras_iterconv.trainer import IterativeModel


class Architecture(NamedTuple):
    """A named architecture.

    Attributes:
        kind: `CONVOLUTIONAL`, `FULLY_CONNECTED` or `RECURRENT`.
        build: Function that returns the model.
        settings: Arguments of `build` for this name, which a user can override.
        block: Layer class whose arguments `build` accepts and passes on; None without one.
        fixed: Arguments of `build` for this name, which a user cannot override.
        per_position: Whether the logits are `[N, positions, classes]`, else `[N, classes]`.
        mostly_loops: Whether nearly all of the work is in loops whose samples are independent.
        normalised: Whether it has batch normalisation, which can be synchronized.
    """

    kind: str
    build: Callable[..., IterativeModel]
    settings: dict
    block: type | None = None
    fixed: dict = {}  # noqa: RUF012  # read only
    per_position: bool = False
    mostly_loops: bool = False
    normalised: bool = True

    @property
    def adjustable(self) -> bool:
        """Whether the number of updates of its blocks can be set."""
        return self.per_position or getattr(self.block, "adjustable", False)


def _mnist_resnets() -> dict[str, Architecture]:
    """Return the ResNets of section 5.1 of NAIS-Net: each combination of SH, NA and BN."""
    entries = {}
    for shared, non_autonomous, batch_norm in itertools.product((False, True), repeat=3):
        suffixes = zip(("_sh", "_na", "_bn"), (shared, non_autonomous, batch_norm), strict=True)
        name = "resnet" + "".join(suffix for suffix, used in suffixes if used)
        entries[name] = Architecture(
            FULLY_CONNECTED,
            resnet_dense,
            {},
            fixed={"shared": shared, "non_autonomous": non_autonomous, "batch_norm": batch_norm},
            normalised=batch_norm,
        )
    return entries


# Widths of the first stage in Lippl et al., and block options by family; mu = 0.95.
_WIDTHS = (8, 16, 32, 64)
_FAMILIES: dict[str, dict[str, Any]] = {
    "resnet": {},
    "icr": {"lipschitz_cap": 0.95},
    "pcr": {"lipschitz_cap": 0.95, "skip_from": "stage_input"},
}


def _residual_nets() -> dict[str, Architecture]:
    """Return the ordinary, improperly and properly convergent ResNets of Lippl et al."""
    return {
        f"{family}_w{width}": Architecture(
            CONVOLUTIONAL,
            residual_net,
            {"width": width, **settings},
            ResidualStage,
            fixed={"skip_from": settings.get("skip_from", "previous")},
        )
        for family, settings in _FAMILIES.items()
        for width in _WIDTHS
    }


ARCHITECTURES: dict[str, Architecture] = {
    "nais1": Architecture(
        CONVOLUTIONAL, nais_net, {"max_unroll": 1}, NAISConv2D, mostly_loops=True
    ),
    "nais10": Architecture(
        CONVOLUTIONAL, nais_net, {"max_unroll": 10}, NAISConv2D, mostly_loops=True
    ),
    "nais_adaptive": Architecture(
        CONVOLUTIONAL,
        nais_net,
        {"max_unroll": 10, "threshold": 1e-4},
        NAISConv2D,
        mostly_loops=True,
    ),
    "nais_fast": Architecture(CONVOLUTIONAL, nais_fast_net, {"max_unroll": 3}, NAISConv2D),
    "nais_dense": Architecture(
        FULLY_CONNECTED,
        nais_dense_net,
        {"max_unroll": 30},
        NAISDense,
        mostly_loops=True,
        normalised=False,
    ),
    "deep_thinking": Architecture(
        RECURRENT,
        deep_thinking_net,
        {"max_unroll": 1000, "threshold": 1.0},
        per_position=True,
        normalised=False,
    ),
    **_residual_nets(),
    "resnet54": Architecture(CONVOLUTIONAL, resnet54, {}, fixed={"batch_norm": True}),
    "resnet54_plain": Architecture(CONVOLUTIONAL, resnet54, {}, fixed={"batch_norm": False}),
    # About as many parameters as nais1, which has two kernels a block: the widths are those of
    # resnet54 times the square root of 2, rounded down.
    "resnet54_wide": Architecture(
        CONVOLUTIONAL, resnet54, {"filters": (22, 45, 90)}, fixed={"batch_norm": True}
    ),
    **_mnist_resnets(),
    "resnet_sh_stable": Architecture(
        FULLY_CONNECTED,
        nais_dense_net,
        # A ResNet's step, as of the eight others; Theorem 2 holds for h up to 1.
        {"max_unroll": 30, "step_size": 1.0},
        NAISDense,
        mostly_loops=True,
        fixed={"embedding": True, "initial_state": "input", "non_autonomous": False},
        normalised=False,
    ),
}


# Architectures accept any images, so their names contain no data set; this one is for old code.
FORMER_NAMES = {"nais_mnist": "nais_dense"}
ARCHITECTURES.update({old: ARCHITECTURES[name] for old, name in FORMER_NAMES.items()})


def list_models() -> list[str]:
    """Return the sorted names of the architectures of `create_model`, including former names.

    Example:
        >>> [name for name in ki.list_models() if name.startswith("pcr")]
        ['pcr_w16', 'pcr_w32', 'pcr_w64', 'pcr_w8']

    See also:
        `create_model`; `list_pretrained`.
    """
    return sorted(ARCHITECTURES)


def create_model(
    name: str, input_shape: Sequence[int], num_classes: int, **overrides: Any
) -> IterativeModel:
    """Return a model of a named architecture, with newly initialised weights.

    Args:
        name: Name in `list_models()`.
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits, at least 2.
        **overrides: Settings to change, of the architecture (`filters`, `blocks`, `units`) or of
            its block (`max_unroll`, `threshold`, `step_size`, `activation`, ...).

    Returns:
        An `IterativeModel` from images, float `[N, height, width, channels]`, to logits, float32
        `[N, num_classes]`; `deep_thinking` has logits `[N, positions, num_classes]`.

    Raises:
        ValueError: The name or a setting is unknown, or a value is out of its range.

    Example:
        >>> model = ki.create_model("nais10", (32, 32, 3), 10, blocks=2, step_size=0.5)
        >>> model.output_shape, len(ki.iterated_blocks(model))
        ((None, 10), 6)

    See also:
        `list_models`; `load_pretrained`, for trained ones; `IterativeModel`; `set_depth`.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(unknown_name("name", name, ARCHITECTURES))
    check_channels_last()
    input_shape = tuple(input_shape) if isinstance(input_shape, Iterable) else (input_shape,)
    if len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be (height, width, channels). "
            f"Received: input_shape={input_shape!r}"
        )
    for size in input_shape:
        check_positive_int("input_shape", size)
    if check_positive_int("num_classes", num_classes) < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    architecture = ARCHITECTURES[name]
    settings = list_settings(name)
    for setting in overrides:
        if setting == "synchronized" and not architecture.normalised:
            raise ValueError(
                f"`synchronized` is of batch normalisation, which {name!r} does not have: leave it "
                f"out. Received: synchronized={overrides[setting]!r}"
            )
        if setting not in settings:
            raise ValueError(
                f"{name!r} has no setting {setting!r}; it has {', '.join(settings)}. "
                f"Received: {setting}={overrides[setting]!r}"
            )
    return architecture.build(
        input_shape,
        num_classes,
        name=name,
        **{**architecture.settings, **overrides, **architecture.fixed},
    )


def list_settings(name: str) -> list[str]:
    """Return the names of the settings that `create_model` can override in an architecture."""
    architecture = ARCHITECTURES[name]
    names = set(inspect.signature(architecture.build).parameters)
    if architecture.block is not None:
        # The builder sets the number of channels of its blocks.
        block = set(inspect.signature(architecture.block).parameters)
        names |= block - {"filters", "units"}
    reserved = {"self", "kwargs", "block_options", "stage_options", "input_shape", "num_classes"}
    reserved |= {"name", *architecture.fixed}
    if not architecture.normalised:
        reserved.add("synchronized")
    return sorted(names - reserved)
