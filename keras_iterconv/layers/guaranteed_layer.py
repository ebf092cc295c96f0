"""What every layer has whose guarantee rests on where its weights lie."""

import hashlib
from collections.abc import Sequence

import keras
import numpy as np


class GuaranteedLayer(keras.layers.Layer):
    """Base of the layers that project their weights or cap a Lipschitz constant.

    Training steps keep the guarantee. Anything else that changes weights, such as averages that
    take their place or an assignment by hand, may break it; `restore_guarantee` brings it back,
    and costs little where nothing has changed.
    """

    # Of the weights for which the guarantee is known to hold.
    _guaranteed: bytes | None = None

    def guaranteed_variables(self) -> Sequence[keras.Variable]:
        """Return the variables on which the guarantee rests; none where there is none."""
        raise NotImplementedError

    def restore_guarantee(self) -> None:
        """Make the guarantee hold for the weights as they are, where they have changed."""
        if self._fingerprint() != self._guaranteed:
            self._restore_guarantee()
            self.note_guarantee()

    def note_guarantee(self) -> None:
        """Remember that the guarantee holds for the weights as they are."""
        self._guaranteed = self._fingerprint()

    def _restore_guarantee(self) -> None:
        """Do what `restore_guarantee` says, for weights that may have changed.

        What holds up to rounding stays as it is, so that training does not depend on who looks.
        """
        raise NotImplementedError

    def _fingerprint(self) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for variable in self.guaranteed_variables():
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.digest()
