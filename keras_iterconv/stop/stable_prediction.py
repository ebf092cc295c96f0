"""Stopping where the prediction no longer changes."""

import numbers
from typing import Any

import keras

from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.stop.stopping_rule import Read, StoppingRule, check_scores
from keras_iterconv.unrolling import stopping


@keras.saving.register_keras_serializable("keras_iterconv")
class StablePrediction(StoppingRule):
    """Stop where the class of largest score was the same in `threshold` updates in a row.

    Args:
        readout: A Keras layer or model from the state to scores `[N, ..., classes]`; the model's
            own last layers, for example. With an output for each position, no position may change.
        threshold: A number of updates. The prediction of x(0) counts as the one before the first.

    Raises:
        ValueError: The threshold is no integer of at least 1, or `readout` is no Keras layer; or,
            when `Iterate` is built, the readout does not return scores of at least two classes.

    Example:
        >>> update = keras.layers.Lambda(lambda x: x + [0.0, 1.0])  # the score of class 1 rises
        >>> readout = keras.layers.Dense(2, kernel_initializer="identity")
        >>> layer = ki.Iterate(update, max_unroll=20, stop=ki.stop.StablePrediction(readout, 3))
        >>> state = np.array([[0.0, 1.0], [2.5, 0.0]])  # class 1 always, or from update 3 on
        >>> layer(state, return_depth=True).depth.numpy().tolist()
        [3, 6]

    See also:
        `stop.ReadoutDivergence`; `stop.UpdateNorm`; `Iterate`.
    """

    loosest_threshold = 1.0
    stops_below = False

    def __init__(self, readout: keras.layers.Layer, threshold: float = 2):
        super().__init__(threshold, readout)

    def check_threshold(self, value: float) -> float:
        whole = isinstance(value, numbers.Real) and float(value).is_integer()
        return float(check_positive_int("threshold", int(value) if whole else value))

    def strictest_threshold(self, first: float, max_unroll: int) -> float:
        return float(max_unroll)

    def threshold_between(self, first: float, second: float) -> float | None:
        middle = float((first + second) // 2)
        return None if middle in (first, second) else middle

    def check_readout(self, outputs: Any, name: str) -> None:
        check_scores(outputs, "StablePrediction", name)

    def as_description(self, read: Read) -> stopping.StoppingRule:
        return stopping.UnchangedPrediction(read)
