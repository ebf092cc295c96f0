"""The result of a loop: the state, and each sample's number of updates and reason to stop."""

import enum
from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import comparable_threshold, samples_finite
from keras_iterconv.unrolling.stopping import UPDATE_NORM, StoppingRule
from keras_iterconv.unrolling.update import State


class Status(enum.IntEnum):
    """The reason why a sample's updates ended.

    Example:
        >>> [f"{status.value} {status.name}" for status in ki.unrolling.Status]
        ['0 CONVERGED', '1 MAX_UNROLL', '2 NOT_FINITE']

    See also:
        `with_depth`, which returns it for each block; `unrolling.Unrolled`; `find_not_finite`.
    """

    CONVERGED = 0
    """The stopping rule was met: in a NAIS block, the 2-norm of the last update fell below the
    threshold."""
    MAX_UNROLL = 1
    """The sample made `max_unroll` updates, as every finite sample does at a fixed depth."""
    NOT_FINITE = 2
    """The state holds a NaN or an infinity, or what the stopping rule measured is not finite."""


class Unrolled(NamedTuple):
    """The result of a loop over a batch of N samples.

    Attributes:
        state: The last state, a tensor `[N, ...]` or a structure of them.
        depth: The number of updates made, int32 `[N]`. It includes the update after which the
            stopping rule was met.
        status: A `Status`, int32 `[N]`.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=5)
        >>> unrolled = block(np.ones((2, 4)), return_depth=True)
        >>> unrolled.state.shape, unrolled.depth.numpy().tolist(), unrolled.status.numpy().tolist()
        (TensorShape([2, 8]), [5, 5], [1, 1])

    See also:
        `unrolling.Status`; `unrolling.unroll_adaptive`; `with_depth`, for a whole model.
    """

    state: State
    depth: tf.Tensor
    status: tf.Tensor

    @classmethod
    def adaptive(
        cls,
        state: State,
        depth: int | tf.Tensor,
        value: tf.Tensor,
        threshold: float | tf.Tensor,
        rule: StoppingRule = UPDATE_NORM,
        min_unroll: int | tf.Tensor = 1,
    ) -> "Unrolled":
        """Return the result of a loop of adaptive depth.

        Args:
            state: The last state, a tensor `[N, ...]` or a structure of them.
            depth: int32 `[N]`.
            value: What the stopping rule measured at each sample's last update, `[N]`.
            threshold: The stopping threshold, a scalar tensor.
            rule: The stopping rule.
            min_unroll: The number of updates from which on the rule counts.
        """
        goes_on = rule.goes_on(value, comparable_threshold(threshold, value.dtype))
        # `max_unroll` can be below `min_unroll`.
        goes_on |= depth < min_unroll
        status = tf.where(goes_on, int(Status.MAX_UNROLL), int(Status.CONVERGED))
        finite = samples_finite(state) & tf.math.is_finite(value)
        return cls(state, depth, tf.where(finite, status, int(Status.NOT_FINITE)))

    @classmethod
    def fixed(cls, state: State, depth: int | tf.Tensor) -> "Unrolled":
        """Return the result of a loop of a fixed depth, an int or an int32 scalar."""
        finite = samples_finite(state)
        status = tf.where(finite, int(Status.MAX_UNROLL), int(Status.NOT_FINITE))
        return cls(state, tf.fill(tf.shape(finite), depth), status)
