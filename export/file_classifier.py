"""Classification with a file of an exported model, in any runtime."""

import json
import math
import numbers
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .model_files import ModelFileError, one_line
from .preparation import PREPARATIONS, Preparation, parse_preparation

OUTPUTS = {
    "logits": "float32",
    "probabilities": "float32",
    "depth": "int32",
    "status": "int32",
}
_DEPTH_INPUTS = {"threshold", "max_unroll"}
_LARGEST_INT = 2**31 - 1
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


class Predictions(NamedTuple):
    """The outputs of a model for N images.

    Attributes:
        logits: float32 `[N, classes]`; `[N, positions, classes]` of a model that answers for each
            position.
        probabilities: float32, of the shape of the logits.
        depth: int32 `[N, blocks]`, the number of updates in each block.
        status: int32 `[N, blocks]`: 0 converged, 1 stopped at `max_unroll` (always in a model of
            fixed depth), 2 not finite.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    depth: np.ndarray
    status: np.ndarray


class TensorFacts(NamedTuple):
    """What a runtime knows of an input or output.

    Attributes:
        dtype: Its name in NumPy; the runtime's own where there is none.
        shape: Its sizes; those that are free are no integers.
    """

    dtype: str
    shape: Sequence[Any]


class FileFacts(NamedTuple):
    """What a runtime knows of a file.

    Attributes:
        metadata: Its metadata, strings by name.
        inputs: Its inputs by name, without the optional ones.
        outputs: Its outputs by name.
        optional: The names of the inputs that can be left out.
    """

    metadata: Mapping[str, str]
    inputs: Mapping[str, TensorFacts]
    outputs: Mapping[str, TensorFacts]
    optional: Collection[str]


class FileClassifier:
    """A classifier that runs a file of an exported model; subclasses say in which runtime.

    A subclass has a method `_run`, and `stop`.

    Args:
        path: The file.
        facts: What the runtime knows of it.

    Attributes:
        classes: The names of the classes, in the order of the logits.
        input_shape: (H, W, C) of an image. A size that the model leaves free is None, such as the
            length of a sequence, which is the height of an image.
        per_position: Whether the model has an answer for each position instead of one for the
            image.
        scale: The largest raw value of a pixel. Images have values from 0 to `scale`; the model
            standardises them itself.
        adaptive: Whether the depth is adaptive, with one threshold for all blocks.
        settable: Whether `classify` can be given another `threshold` and `max_unroll`: the depth
            is adaptive, and the file was not written with fixed inputs.
        threshold: The default stopping threshold of `classify`; None if the depth is fixed.
        max_unroll: The default largest number of updates of a block; None if the depth is fixed.
        preparation: How the images of the model's data set were made from pictures of one mark;
            None for a data set of whole pictures. Files without it in their metadata have the
            preparation of their data set's name.
        metadata: The file's metadata, strings by name; `result` is JSON.

    Raises:
        ModelFileError: The file was not exported by keras_iterconv.
    """

    def __init__(self, path: str, facts: FileFacts):
        def require(fits: bool, what: str) -> None:
            if not fits:
                raise ModelFileError(
                    f"{path} is not a model that keras_iterconv exported: {what}; export it again"
                )

        def metadata(name: str, fits: Callable[[Any], Any], expected: str) -> Any:
            require(name in self.metadata, f"its metadata lacks `{name}`")
            try:
                value = json.loads(self.metadata[name])
            except (ValueError, RecursionError):
                value = None
            require(bool(fits(value)), f"`{name}` in its metadata must be {expected}")
            return value

        self.metadata: dict[str, str] = dict(facts.metadata)
        inputs, outputs = facts.inputs, facts.outputs
        _check_tensors(inputs, outputs, require)
        for name in ("model", "dataset"):
            require(name in self.metadata, f"its metadata lacks `{name}`")
        # A free size has a name instead of a number.
        self.input_shape: tuple[int | None, ...] = tuple(
            size if isinstance(size, int) else None for size in inputs["image"].shape[1:]
        )
        self.per_position: bool = len(outputs["logits"].shape) > 2
        self.classes: tuple[str, ...] = tuple(metadata("classes", _is_names, "a list of names"))
        count = outputs["logits"].shape[-1]
        require(
            not isinstance(count, int) or count == len(self.classes),
            f"it names {len(self.classes)} classes for {count} logits",
        )
        self.scale = float(metadata("scale", _is_positive, "a positive number"))
        self.preparation: Preparation | None = PREPARATIONS.get(self.metadata["dataset"])
        if "preparation" in self.metadata:
            value = metadata(
                "preparation", parse_preparation, f"an object of {', '.join(Preparation._fields)}"
            )
            self.preparation = parse_preparation(value)
        depth_inputs = _DEPTH_INPUTS.intersection([*inputs, *facts.optional])
        require(len(depth_inputs) != 1, f"of the inputs of depth it has only {list(depth_inputs)}")
        self.settable = bool(depth_inputs)
        # A file with fixed inputs has the settings in its metadata alone.
        self.adaptive = self.settable or "threshold" in self.metadata
        self.threshold: float | None = None
        self.max_unroll: int | None = None
        if self.adaptive:
            self.threshold = metadata("threshold", _is_positive, "a positive number")
            self.max_unroll = metadata("max_unroll", _is_count, "a positive integer")
        # Untied blocks have weights for a fixed number of updates.
        self._most_updates = _LARGEST_INT
        if "most_updates" in self.metadata:
            self._most_updates = metadata("most_updates", _is_count, "a positive integer")
        self._defaults: dict[str, np.ndarray] = {}
        if depth_inputs and not depth_inputs.intersection(facts.optional):
            # Required inputs have no defaults in the file.
            self._defaults = self.check_depth(self.threshold, self.max_unroll)
        self._path = path

    @property
    def picture_shape(self) -> tuple[int, int, int] | None:
        """The `input_shape` of a model of one answer for images of one size, else None."""
        height, width, channels = self.input_shape
        if height is None or width is None or channels is None or self.per_position:
            return None
        return height, width, channels

    def classify(
        self,
        images: np.ndarray,
        threshold: float | None = None,
        max_unroll: int | None = None,
    ) -> Predictions:
        """Return the predictions for a batch of images.

        Args:
            images: Raw images `[N, H, W, C]`, floats or integers from 0 to `scale`. A sequence
                is an image of width 1.
            threshold: Stopping threshold: an image stops after an update of a smaller 2-norm. None
                for the model's own; 0 for all updates.
            max_unroll: Largest number of updates of a block; None for the model's own.

        Returns:
            The predictions; empty arrays for an empty batch.

        Raises:
            ValueError: An argument is out of range or has a wrong shape, a pixel is not finite, or
                the depth cannot be chosen: it is fixed, or the file's inputs are.
            ModelFileError: The model fails on a valid input.
        """
        images = self._check_images(images)
        feeds = {"image": images, **self._defaults, **self.check_depth(threshold, max_unroll)}
        if not len(images):
            # Loops may fail on an empty batch; a blank image gives outputs of the right shapes and
            # dtypes.
            feeds["image"] = np.zeros((1, *images.shape[1:]), np.float32)
        try:
            outputs = self._run(feeds)
        # The exceptions of runtimes have no other common base class.
        except Exception as error:
            raise ModelFileError(f"{self._path} cannot be run: {one_line(error)}") from error
        return Predictions(*(output[: len(images)] for output in outputs))

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs in the order of `OUTPUTS`, for `image` and given optional inputs."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop a run in another thread, as soon as the runtime can."""

    def _check_images(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        if images.dtype.kind not in "fiu":
            raise ValueError(
                f"`images` must be floats or integers. Received: images of dtype {images.dtype}"
            )
        if not self._fits(images.shape):
            sizes = dict(zip("HWC", self.input_shape, strict=True))
            expected = ", ".join(
                name if size is None else str(size) for name, size in sizes.items()
            )
            free = [name for name, size in sizes.items() if size is None]
            least = f" with {' and '.join(free)} of at least 1" if free else ""
            raise ValueError(
                f"`images` must have the shape [N, {expected}]{least}. "
                f"Received: images of shape {list(images.shape)}"
            )
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if len(bad):
            others = f" and in {len(bad) - 1} more" if len(bad) > 1 else ""
            raise ValueError(
                "`images` must be finite in float32. "
                f"Received: images with NaN or infinite pixels in images[{bad[0]}]{others}"
            )
        return images

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether the model takes images of a shape `[N, H, W, C]`."""
        return len(shape) == 4 and all(
            found == size or (size is None and found > 0)
            for found, size in zip(shape[1:], self.input_shape, strict=True)
        )

    def check_depth(
        self, threshold: float | None = None, max_unroll: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return the given inputs of depth as arrays without dimensions.

        Raises:
            ValueError: A value is out of range, or the depth cannot be chosen.
        """
        given = {"threshold": threshold, "max_unroll": max_unroll}
        given = {name: value for name, value in given.items() if value is not None}
        if given and not self.settable:
            name, value = next(iter(given.items()))
            raise ValueError(
                f"`{name}` must be left out: {self._why_not_settable()}. Received: {name}={value!r}"
            )
        feeds = {}
        if threshold is not None:
            number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
            if not number or not 0 <= threshold <= _LARGEST_FLOAT:
                raise ValueError(
                    "`threshold` must be a number of at least 0, finite in float32. "
                    f"Received: threshold={threshold!r}"
                )
            feeds["threshold"] = np.array(threshold, np.float32)
        if max_unroll is not None:
            try:
                whole = 0 if isinstance(max_unroll, bool) else operator.index(max_unroll)
            except TypeError:
                whole = 0
            if not 1 <= whole <= self._most_updates:
                raise ValueError(
                    f"`max_unroll` must be an integer from 1 to {self._most_updates}. "
                    f"Received: max_unroll={max_unroll!r}"
                )
            feeds["max_unroll"] = np.array(whole, np.int32)
        return feeds

    def _why_not_settable(self) -> str:
        if self.adaptive:
            return (
                f"this file was written with fixed inputs, threshold {self.threshold:g} and "
                f"max_unroll {self.max_unroll}; export the model with settable inputs to choose"
            )
        if any(name.startswith("threshold/") for name in self.metadata):
            return (
                "this class sets one depth for all blocks, and those of this model have their own"
            )
        return "the depth of this model is fixed"


def _check_tensors(
    inputs: Mapping[str, TensorFacts],
    outputs: Mapping[str, TensorFacts],
    require: Callable[[bool, str], None],
) -> None:
    """Require the inputs and outputs, by their names, that an exported model has."""
    others = sorted(set(inputs) - _DEPTH_INPUTS)
    require(
        others == ["image"],
        f"its inputs are {others} instead of ['image'], as of a model exported with `classes`",
    )
    shape = inputs["image"].shape
    require(
        inputs["image"].dtype == "float32" and len(shape) == 4 and isinstance(shape[3], int),
        f"`image` is {inputs['image'].dtype} {list(shape)} instead of float32 [N, H, W, C]",
    )
    for name, kind in OUTPUTS.items():
        found = outputs[name].dtype if name in outputs else "missing"
        require(found == kind, f"its output `{name}` is {found} instead of {kind}")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(name, str) for name in value)


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
