"""Gradients of a step that runs on several replicas."""

import tensorflow as tf


def clips(optimizer) -> bool:
    """Whether a Keras optimizer, or one inside it, clips gradients."""
    inside = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    return any(
        getattr(optimizer, name, None) for name in ("clipnorm", "global_clipnorm", "clipvalue")
    ) or any(clips(part) for part in inside if part is not None)


def total_on_first_replica(gradients: list) -> list:
    """Return the gradients summed over the replicas on the first one, and zeros on the others.

    Keras's optimizers clip the gradients of each replica and sum them afterwards: two replicas
    then take a step of up to twice the clipping norm. Given these, they clip the sum, and add
    zeros to it.

    Args:
        gradients: Tensors, `tf.IndexedSlices` or None, of this replica. None must be so on all.

    Returns:
        The list, each gradient in the form that it had.
    """
    context = tf.distribute.get_replica_context()
    totals = iter(
        context.all_reduce(tf.distribute.ReduceOp.SUM, [g for g in gradients if g is not None])
    )
    is_first = tf.equal(context.replica_id_in_sync_group, 0)

    def keep(gradient):
        # A product, so that NaN and infinities make the zeros NaN: where a loss is scaled, all
        # replicas must skip such a step.
        return gradient * tf.cast(is_first, gradient.dtype)

    def kept(total):
        if isinstance(total, tf.IndexedSlices):
            return tf.IndexedSlices(keep(total.values), total.indices, total.dense_shape)
        return keep(total)

    return [None if gradient is None else kept(next(totals)) for gradient in gradients]
