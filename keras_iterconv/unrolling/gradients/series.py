"""A sum over powers of one Jacobian.

With the Jacobian J of one update, v(j) = J'^j g is the gradient in the state j updates earlier,
were the slopes of the activation the same there, and what the weights get is the pull-back of the
sum of all v(j): one for all updates.
"""

import tensorflow as tf

from keras_iterconv.unrolling.samples import select


def sum_series(update, state, value, g, terms, lasts):
    """Sum v(j) = J'^j g over j < terms, each sample's as long as `lasts(j, v)`, bool `[N]`, holds.

    Returns:
        `(v, sum)`: the first term left out, and the sum.
    """

    def step(j, v, total, more):
        earlier = v + update.vjp(state, tf.constant(0), value, v)[0]
        longer = total + v
        if lasts is None:
            return j + 1, earlier, longer, more
        with_term = lasts(j, v)
        v, total = select(with_term, earlier, v), select(with_term, longer, total)
        return j + 1, v, total, tf.reduce_any(with_term)

    _, v, total, _ = tf.while_loop(
        lambda j, v, total, more: (j < terms) & more,
        step,
        (tf.constant(0), g, tf.zeros_like(g), tf.constant(True)),
    )
    return v, total
