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

    Reference:
        Ciccone et al. 2018, section 5.3.
    """

    def __init__(self, threshold: float, relative: bool = False):
        super().__init__(threshold)
        self.relative = bool(relative)

    def as_description(self, read: Read) -> stopping.StoppingRule:
        return stopping.RelativeUpdateNorm() if self.relative else stopping.UPDATE_NORM

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "relative": self.relative}
