"""Stopping by a learned probability."""

import math
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_between
from keras_iterconv.stop.stopping_rule import RESOLUTION, Read, StoppingRule, round_between
from keras_iterconv.unrolling import stopping

# A float32 sigmoid can be told from 1 down to about this distance.
_LEAST = 1e-6


@keras.saving.register_keras_serializable("keras_iterconv")
class Halting(StoppingRule):
    """Stop where a learned probability of stopping is above the threshold.

    The probability after update k is p(k) = sigmoid(layer(x(k))). In training no sample stops: all
    make `max_unroll` updates, and the output is the mean of the states, each weighted by the
    probability to stop there, (1 - p(1)) ... (1 - p(k-1)) p(k); the last state has the remaining
    weight. So the loss of the task trains the head. `ponder` times the mean number of updates that
    this distribution expects is added to the loss.

    Args:
        layer: A Keras layer or model from the state to one logit for each sample, `[N, 1]`.
        threshold: A probability, in (0, 1).
        ponder: The weight of the expected number of updates in the loss, at least 0.

    Raises:
        ValueError: An argument is out of its range, or `layer` is no Keras layer; or, when
            `Iterate` is built, the layer does not return one logit for each sample.

    Example:
        >>> add = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="ones")
        >>> head = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
        >>> layer = ki.Iterate(add, max_unroll=20, stop=ki.stop.Halting(head, threshold=0.6))
        >>> state = np.array([[-3.0], [-1.0]])  # it stops where x > 0.41
        >>> layer(state, return_depth=True).depth.numpy().tolist()
        [4, 2]

    Reference:
        Graves 2016, "Adaptive computation time for recurrent neural networks"; Banino et al. 2021,
        "PonderNet", for the distribution of the updates.

    See also:
        `stop.UpdateNorm` and `stop.StablePrediction`, which need no training; `Iterate`.
    """

    readout_argument = "layer"
    loosest_threshold = _LEAST
    stops_below = False

    def __init__(self, layer: keras.layers.Layer, threshold: float = 0.5, ponder: float = 0.0):
        super().__init__(threshold, layer)
        self.ponder = 0.0 if ponder == 0 else check_between("ponder", ponder, 0, float("inf"))

    def check_threshold(self, value: float) -> float:
        return check_between("threshold", value, 0, 1, least=0)

    def strictest_threshold(self, first: float, max_unroll: int) -> float:
        return 1 - _LEAST

    def threshold_between(self, first: float, second: float) -> float | None:
        low, high = sorted((first, second))
        logits = [math.log(p) - math.log1p(-p) for p in (low, high)]
        if logits[1] - logits[0] <= RESOLUTION:
            return None
        middle = 1 / (1 + math.exp(-sum(logits) / 2))
        if middle <= 0.5:
            return round_between(low, middle, high)
        # The digits that count are those of the distance from 1.
        return 1 - round_between(1 - high, 1 - middle, 1 - low)

    def check_readout(self, outputs: Any, name: str) -> None:
        shape = getattr(outputs, "shape", None)
        if shape is None or tuple(shape[1:]) != (1,):
            raise ValueError(
                f"The halting head of {name!r} must return one logit for each sample, a tensor of "
                f"the shape (N, 1). Received: outputs {outputs}"
            )

    def as_description(self, read: Read) -> stopping.StoppingRule:
        return stopping.HaltingProbability(self.logit(read))

    def logit(self, read: Read) -> Read:
        """Return a function from `(state, weights, drives)` to the head's logits, `[n]`.

        Args:
            read: As for `as_description`.
        """
        return lambda state, weights, drives: tf.squeeze(read(state, weights, drives), axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ponder": self.ponder}
