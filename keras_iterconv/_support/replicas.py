"""A training step on several replicas: shares of a batch, sums over replicas, and its outputs.

A strategy of several workers (`tf.distribute.MultiWorkerMirroredStrategy`) has its replicas in
several processes. Each process runs the same steps; what one of them sums, all must sum.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_several_replicas() -> bool:
    """Return whether this code runs on one replica of several, in a step of a strategy."""
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def count_samples(x: Any) -> tf.Tensor:
    """Return the number of samples of a batch, an int32 scalar."""
    return tf.shape(tf.nest.flatten(x)[0])[0]


def share_of_loss(loss: tf.Tensor, x: Any, losses: Any) -> tf.Tensor:
    """Return the loss of this replica, whose sum over the replicas is the loss of one device.

    Keras averages over the samples of a replica, and divides by the number of replicas. So a
    sample of a smaller share of the batch would count more.

    Args:
        loss: Loss of this replica, a scalar, as Keras computes it.
        x: Inputs of this replica, whose first axis counts the samples; there may be none.
        losses: What the model was compiled with as its loss. One that sums over the samples needs
            no share.
    """
    sums = any(getattr(each, "reduction", None) == "sum" for each in tf.nest.flatten(losses))
    if sums or not on_several_replicas():
        return loss
    context = tf.distribute.get_replica_context()
    samples = tf.cast(count_samples(x), tf.float64)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, samples)
    share = tf.math.divide_no_nan(samples * context.num_replicas_in_sync, total)
    return loss * tf.cast(share, loss.dtype)


def stack_over_replicas(row: tf.Tensor) -> tf.Tensor:
    """Return the tensors of all replicas, stacked; gradients flow to all replicas.

    Args:
        row: Tensor of this replica, `[n]`, of the same shape on all replicas.

    Returns:
        A tensor `[replicas, n]`, equal on all replicas.
    """
    context = tf.distribute.get_replica_context()
    place = tf.one_hot(
        context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=row.dtype
    )
    # A sum, since the sizes of what is gathered would be exchanged too.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, place[:, tf.newaxis] * row)


def count_workers(strategy: tf.distribute.Strategy) -> int:
    """Return the number of processes that the replicas of a strategy are in."""
    resolver = strategy.cluster_resolver
    jobs = {} if resolver is None else resolver.cluster_spec().as_dict()
    return max(sum(len(jobs.get(job, ())) for job in ("chief", "worker")), 1)


def reducible(step: Callable, strategy: tf.distribute.Strategy) -> Callable:
    """Return a step of `fit` or `evaluate` whose outputs Keras can average over the replicas.

    Over several workers, Keras averages over the first axis of the outputs, which metrics lack.
    """
    if count_workers(strategy) == 1:
        return step

    def run(data):
        return tf.nest.map_structure(lambda value: tf.reshape(value, [1]), step(data))

    return run


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
