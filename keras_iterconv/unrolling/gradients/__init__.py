"""The gradient modes of the loops, in one table."""

from keras_iterconv.unrolling.gradients.exact import RECOMPUTE, UNROLL
from keras_iterconv.unrolling.gradients.frozen import FROZEN
from keras_iterconv.unrolling.gradients.implicit import IMPLICIT
from keras_iterconv.unrolling.gradients.mode import GradientMode

MODES = {mode.name: mode for mode in (UNROLL, RECOMPUTE, IMPLICIT, FROZEN)}
GRADIENTS = tuple(MODES)

__all__ = ["GRADIENTS", "MODES", "GradientMode"]
