"""The numerical core: loops that repeat an update on a state, and their gradients.

Free of Keras layers.
"""

from keras_iterconv.unrolling.anderson import SOLVERS, unroll_anderson
from keras_iterconv.unrolling.result import Status, Unrolled
from keras_iterconv.unrolling.shared import unroll_shared
from keras_iterconv.unrolling.unroll import GRADIENTS, unroll_adaptive, unroll_fixed
from keras_iterconv.unrolling.update import ACTIVATIONS, Activation, Update

__all__ = [
    "ACTIVATIONS",
    "GRADIENTS",
    "SOLVERS",
    "Activation",
    "Status",
    "Unrolled",
    "Update",
    "unroll_adaptive",
    "unroll_anderson",
    "unroll_fixed",
    "unroll_shared",
]
