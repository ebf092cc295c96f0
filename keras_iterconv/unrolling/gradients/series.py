"""A sum over powers of one Jacobian.

Let J be the Jacobian of one update x + h sigma(...) in x. If the activation has the same slopes at
all updates, v(j) = J'^j g is the gradient in the state j updates before the last. The gradient in
the weights is then one vector-Jacobian product, that of the sum of all v(j).
"""

from collections.abc import Callable
from typing import cast

import tensorflow as tf

from keras_iterconv.unrolling.euler_update import EulerUpdate
from keras_iterconv.unrolling.samples import select
from keras_iterconv.unrolling.update import BoundUpdate


def sum_series(
    update: BoundUpdate,
    state: tf.Tensor,
    value: tf.Tensor,
    g: tf.Tensor,
    terms: int | tf.Tensor,
    has_term: Callable | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the sum of v(j) = J'^j g over j < `terms`, for each sample as far as it has terms.

    Args:
        update: A tied `EulerUpdate`, bound to its tensors.
        state: The state at which J is taken, `[N, ...]`.
        value: The value sigma(...) that determines the slopes in J, `[N, ...]`.
        g: v(0), `[N, ...]`, in the state's dtype.
        terms: The largest number of terms, an int or an int32 scalar.
        has_term: A function from `(j, v)` to which samples' sums include v(j), bool `[N]`; None
            where all sums have all terms.

    Returns:
        `(v, sum)`: the first term that is not in the sum, and the sum, `[N, ...]` each.
    """
    euler = cast(EulerUpdate, update.update)

    def step(j, v, total, more):
        dx, _, _ = euler.change_vjp(state, tf.constant(0), value, v, update.weights, update.drives)
        earlier = v + dx
        longer = total + v
        if has_term is None:
            return j + 1, earlier, longer, more
        with_term = has_term(j, v)
        v, total = select(with_term, earlier, v), select(with_term, longer, total)
        return j + 1, v, total, tf.reduce_any(with_term)

    _, v, total, _ = tf.while_loop(
        lambda j, v, total, more: (j < terms) & more,
        step,
        (tf.constant(0), g, tf.zeros_like(g), tf.constant(True)),
    )
    return v, total
