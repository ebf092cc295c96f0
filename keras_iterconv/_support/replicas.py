"""Gradients of a training step on several replicas."""

from typing import Any

import tensorflow as tf


def clips(optimizer: Any) -> bool:
    """Return whether a Keras optimizer, or an optimizer inside it, clips gradients."""
    inside = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    return any(
        getattr(optimizer, name, None) for name in ("clipnorm", "global_clipnorm", "clipvalue")
    ) or any(clips(inner) for inner in inside if inner is not None)


def total_on_first_replica(gradients: list) -> list:
    """Return the sum of gradients over all replicas on the first, and zeros elsewhere.

    Keras optimizers clip the gradients of each replica before they sum them, so the step of two
    replicas can be twice the clipping norm. With these gradients they clip the sum.

    Args:
        gradients: Gradients of this replica: tensors, `tf.IndexedSlices` or None. A gradient that
            is None must be None on all replicas.

    Returns:
        A list of gradients of the same types.
    """
    context = tf.distribute.get_replica_context()
    totals = iter(
        context.all_reduce(tf.distribute.ReduceOp.SUM, [g for g in gradients if g is not None])
    )
    is_first = tf.equal(context.replica_id_in_sync_group, 0)

    def keep(gradient):
        # A product, so that the zeros become NaN where the sum is not finite: with loss scaling,
        # all replicas must skip such a step.
        return gradient * tf.cast(is_first, gradient.dtype)

    def kept(total):
        if isinstance(total, tf.IndexedSlices):
            return tf.IndexedSlices(keep(total.values), total.indices, total.dense_shape)
        return keep(total)

    return [None if gradient is None else kept(next(totals)) for gradient in gradients]
