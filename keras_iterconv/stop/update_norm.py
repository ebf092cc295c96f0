"""Stopping by the norm of the update."""

from typing import Any

import keras

from keras_iterconv.stop.stopping_rule import Read, StoppingRule
from keras_iterconv.unrolling import stopping


@keras.saving.register_keras_serializable("keras_iterconv")
class UpdateNorm(StoppingRule):
    """Stop where the 2-norm of the change of the whole state is below the threshold.

    Args:
        threshold: A norm in units of the state; of a relative rule a ratio.
        relative: Whether to divide the norm by that of the new state. A relative threshold carries
            over between nets and sizes; an update that is small beside a large state counts as
            small.

    Raises:
        ValueError: The threshold is not positive.

    Example:
        >>> halve = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(0.5))
        >>> layer = ki.Iterate(halve, max_unroll=20, stop=ki.stop.UpdateNorm(0.1))
        >>> layer(np.array([[1.0], [8.0]]), return_depth=True).depth.numpy().tolist()
        [4, 7]
        >>> layer = ki.Iterate(halve, max_unroll=20, stop=ki.stop.UpdateNorm(0.1, relative=True))
        >>> layer(np.array([[1.0], [8.0]]), return_depth=True).depth.numpy().tolist()  # it stays 1
        [20, 20]

    Reference:
        Ciccone et al. 2018, section 5.3.

    See also:
        `stop.ReadoutDivergence` and `stop.StablePrediction`, for what a net predicts;
        `stop.Halting`, which is learned; `calibrate_depth`; `Iterate`.
    """

    def __init__(self, threshold: float, relative: bool = False):
        super().__init__(threshold)
        self.relative = bool(relative)

    def as_description(self, read: Read) -> stopping.StoppingRule:
        return stopping.RelativeUpdateNorm() if self.relative else stopping.UPDATE_NORM

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "relative": self.relative}
