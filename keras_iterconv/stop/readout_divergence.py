"""Stopping where the probabilities of a readout hardly change."""

from typing import Any

import keras

from keras_iterconv.stop.stopping_rule import Read, StoppingRule, check_scores
from keras_iterconv.unrolling import stopping


@keras.saving.register_keras_serializable("keras_iterconv")
class ReadoutDivergence(StoppingRule):
    """Stop where an update changes the probabilities of a readout by less than the threshold.

    The change is the Kullback-Leibler divergence of the readout's softmax after the update from
    that before it.

    Args:
        readout: A Keras layer or model from the state to logits `[N, ..., classes]`; the model's
            own last layers, for example. With an output for each position, the largest divergence
            counts.
        threshold: A divergence, in nats.

    Raises:
        ValueError: The threshold is not positive, or `readout` is no Keras layer; or, when
            `Iterate` is built, the readout does not return scores of at least two classes.

    Example:
        >>> halve = keras.layers.Dense(2, kernel_initializer=keras.initializers.Identity(0.5))
        >>> readout = keras.layers.Dense(2, kernel_initializer="identity")
        >>> layer = ki.Iterate(halve, max_unroll=20, stop=ki.stop.ReadoutDivergence(readout, 1e-3))
        >>> layer(np.array([[1.0, 0.0], [9.0, 0.0]]), return_depth=True).depth.numpy().tolist()
        [4, 7]

    See also:
        `stop.StablePrediction`; `stop.UpdateNorm`; `Iterate`.
    """

    def __init__(self, readout: keras.layers.Layer, threshold: float):
        super().__init__(threshold, readout)

    def check_readout(self, outputs: Any, name: str) -> None:
        check_scores(outputs, "ReadoutDivergence", name)

    def as_description(self, read: Read) -> stopping.StoppingRule:
        return stopping.ReadoutChange(read)
