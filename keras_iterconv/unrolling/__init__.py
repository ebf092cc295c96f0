"""The numerical core: loops that repeat an update on a state, and their gradients.

Free of Keras layers.
"""

from keras_iterconv.unrolling.anderson import SOLVERS, check_anderson, unroll_anderson
from keras_iterconv.unrolling.differentiable import (
    unroll_adaptive,
    unroll_fixed,
    unroll_whole_batch,
)
from keras_iterconv.unrolling.euler_update import ACTIVATIONS, Activation, EulerUpdate
from keras_iterconv.unrolling.gradients import GRADIENTS, MODES
from keras_iterconv.unrolling.result import Status, Unrolled
from keras_iterconv.unrolling.settling import settling_term, with_last_states
from keras_iterconv.unrolling.states import unroll_states
from keras_iterconv.unrolling.tracing import call_traced_once, unroll_traced
from keras_iterconv.unrolling.update import BoundUpdate, Update

__all__ = [
    "ACTIVATIONS",
    "GRADIENTS",
    "MODES",
    "SOLVERS",
    "Activation",
    "BoundUpdate",
    "EulerUpdate",
    "Status",
    "Unrolled",
    "Update",
    "call_traced_once",
    "check_anderson",
    "settling_term",
    "unroll_adaptive",
    "unroll_anderson",
    "unroll_fixed",
    "unroll_states",
    "unroll_traced",
    "unroll_whole_batch",
    "with_last_states",
]
