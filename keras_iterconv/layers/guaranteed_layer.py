"""The base class of layers that guarantee a property of their weights."""

import hashlib
from collections.abc import Iterable, Sequence

import keras
import numpy as np


class GuaranteedLayer(keras.layers.Layer):
    """Base class of the layers that project their weights or cap a Lipschitz constant.

    Training steps keep the guarantee. Any other change of the weights may break it, for example
    an assignment, or replacing them by their averages. `restore_guarantee` restores it, and costs
    only a checksum where no weight has changed.
    """

    # Checksum of the weights for which the guarantee was last established.
    _guaranteed: bytes | None = None

    def guaranteed_variables(self) -> Sequence[keras.Variable]:
        """Return the variables that the guarantee depends on; an empty list for no guarantee."""
        raise NotImplementedError

    def restore_guarantee(self) -> None:
        """Restore the guarantee for the present weights, if they have changed."""
        if self.guaranteed_variables() and self._fingerprint() != self._guaranteed:
            self._restore_guarantee()
            self.note_guarantee()

    def converge_guarantee(self, tolerance: float) -> None:
        """Make the guarantee as tight as the present weights allow; nothing, where it is exact.

        Args:
            tolerance: The residual at which an iteration stops.
        """

    def note_guarantee(self) -> None:
        """Record that the guarantee holds for the present weights."""
        self._guaranteed = self._fingerprint()

    def _restore_guarantee(self) -> None:
        """Restore the guarantee for weights that may have changed.

        Weights for which it holds up to rounding are left as they are, so that evaluating or
        saving a model does not change its training.
        """
        raise NotImplementedError

    def _fingerprint(self) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for variable in self.guaranteed_variables():
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.digest()


def guaranteed_layers(layers: Iterable[keras.layers.Layer]) -> list[GuaranteedLayer]:
    """Return those of some layers that guarantee a property of their weights."""
    return [
        layer
        for layer in layers
        if isinstance(layer, GuaranteedLayer) and layer.built and layer.guaranteed_variables()
    ]
