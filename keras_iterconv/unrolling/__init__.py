"""The numerical core: loops that repeat an update on a state. Free of Keras layers."""

from keras_iterconv.unrolling.adaptive import unroll_adaptive
from keras_iterconv.unrolling.fixed import unroll_fixed
from keras_iterconv.unrolling.result import Status, Unrolled

__all__ = ["Status", "Unrolled", "unroll_adaptive", "unroll_fixed"]
