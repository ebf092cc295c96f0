"""The base class of the rules by which a sample stops."""

from collections.abc import Callable
from typing import Any

import keras

from keras_iterconv._support.checks import check_between
from keras_iterconv._support.private_keras import serialize_shared
from keras_iterconv.unrolling import stopping

# A function from `(state, weights, drives)` to the outputs of a readout.
Read = Callable[..., Any]


class StoppingRule:
    """Base class: a threshold, and the readout that the rule may have.

    A rule belongs to one layer: `Iterate` keeps the threshold in a variable, which
    `keras_iterconv.set_depth` sets, and the weights of the readout among its own.

    Args:
        threshold: The threshold at first.
        readout: A Keras layer or model that is called on the state; None for a rule without one.

    Attributes:
        readout_argument: The name of the argument of the subclass that is the readout.
    """

    readout_argument = "readout"

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

        Raises:
            ValueError: It is out of the rule's range.
        """
        return check_between("threshold", value, 0, float("inf"), least=0)

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
