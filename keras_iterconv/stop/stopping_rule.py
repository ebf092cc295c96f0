"""The base class of the rules by which a sample stops."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_iterconv._support.checks import LARGEST, SMALLEST, check_between
from keras_iterconv._support.private_keras import serialize_shared
from keras_iterconv.unrolling import stopping

# A function from `(state, weights, drives)` to the outputs of a readout.
Read = Callable[..., Any]
# Relative difference below which two thresholds count as equal.
RESOLUTION = 1e-3


class StoppingRule:
    """Base class: a threshold, and the readout that the rule may have.

    A rule belongs to one layer: `Iterate` keeps the threshold in a variable, which
    `keras_iterconv.set_depth` sets, and the weights of the readout among its own.

    Args:
        threshold: The threshold at first.
        readout: A Keras layer or model that is called on the state; None for a rule without one.

    Attributes:
        readout_argument: The name of the argument of the subclass that is the readout.
        loosest_threshold: The threshold at which samples stop soonest.
        stops_below: Whether a larger threshold lets samples stop sooner.

    Raises:
        ValueError: The threshold is out of the rule's range, or the readout is no Keras layer.

    Example:
        >>> rule = ki.stop.UpdateNorm(0.1)
        >>> isinstance(rule, ki.stop.StoppingRule), rule.threshold, rule.stops_below
        (True, 0.1, True)

    See also:
        `stop.UpdateNorm`; `stop.StablePrediction`; `stop.ReadoutDivergence`; `stop.Halting`;
        `Iterate`.
    """

    readout_argument = "readout"
    loosest_threshold = LARGEST
    stops_below = True

    def __init__(self, threshold: float, readout: keras.layers.Layer | None = None):
        if readout is not None and not isinstance(readout, keras.layers.Layer):
            raise ValueError(
                f"The readout of `{type(self).__name__}` must be a Keras layer or model that is "
                f"called on the state. Received: {readout!r}"
            )
        self.threshold = self.check_threshold(threshold)
        self.readout = readout

    def check_threshold(self, value: float) -> float:
        """Return a threshold of this rule as a float.

        Args:
            value: The threshold, in the units of the rule.

        Raises:
            ValueError: It is out of the rule's range.
        """
        return check_between("threshold", value, 0, float("inf"), least=0)

    def strictest_threshold(self, first: float, max_unroll: int) -> float:
        """Return the strictest threshold that is worth a measurement.

        By default it is a millionth of `first`: changes below it are of the size of rounding errors
        in float32.

        Args:
            first: A threshold at which all samples stop after the first update.
            max_unroll: The largest number of updates.
        """
        return max(first * 1e-6, SMALLEST)

    def threshold_between(self, first: float, second: float) -> float | None:
        """Return a threshold about halfway between two others, with few digits; None if too close.

        By default it is about their geometric mean, and those that differ by less than a thousandth
        are too close.

        Args:
            first: One threshold.
            second: The other one, larger or smaller.
        """
        low, high = sorted((first, second))
        if high <= low * (1 + RESOLUTION):
            return None
        return round_between(low, math.sqrt(low) * math.sqrt(high), high)

    def check_readout(self, outputs: Any, name: str) -> None:
        """Raise `ValueError` where the outputs of the readout have a wrong shape.

        Args:
            outputs: What the readout returns, a structure of symbolic tensors.
            name: The name of the layer that the rule belongs to, for the message.
        """

    def as_description(self, read: Read) -> stopping.StoppingRule:
        """Return the rule of the loops.

        Args:
            read: A function from `(state, weights, drives)` to the outputs of the readout, which a
                rule without a readout does not call.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the rule, as Keras configurations."""
        if self.readout is None:
            return {"threshold": self.threshold}
        readout = serialize_shared(self.readout)
        return {"threshold": self.threshold, self.readout_argument: readout}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "StoppingRule":
        """Return the rule of a configuration."""
        config = dict(config)
        if isinstance(config.get(cls.readout_argument), dict):
            readout = keras.saving.deserialize_keras_object(config[cls.readout_argument])
            config[cls.readout_argument] = readout
        return cls(**config)


def round_between(low: float, middle: float, high: float) -> float:
    """Return a number near `middle`, between `low` and `high`, with as few digits as possible."""
    near = min(middle - low, high - middle) / 4
    rounded = (float(f"{middle:.{digits}e}") for digits in range(17))
    return next(number for number in rounded if abs(number - middle) <= near)


def check_scores(outputs: Any, rule: str, name: str) -> None:
    """Raise `ValueError` where outputs are not one tensor `[N, ..., classes]`.

    Args:
        outputs: A structure of symbolic tensors.
        rule: The name of the rule, for the message.
        name: The name of the layer that the rule belongs to, for the message.
    """
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) < 2 or shape[-1] is None or shape[-1] < 2:
        raise ValueError(
            f"The readout of `{rule}` in {name!r} must return one tensor of scores "
            f"`[N, ..., classes]`, of at least two classes. Received: outputs {outputs}"
        )
