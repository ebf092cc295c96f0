"""Parts of a batch that run at the same time, each on one thread.

TensorFlow divides each operation among its threads, which then wait for each other: in a loop over
small operations, once or twice in each of them. The samples of a loop are independent of each
other, so that each thread can run the loop for a part of the batch instead.
"""

import os
from collections.abc import Callable

import tensorflow as tf

from keras_iterconv._support.empty_batches import branches_allowed
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.samples import batch_size
from keras_iterconv.unrolling.update import BoundUpdate, State

# The size of a graph, and the time to trace it, grow with the number of parts.
MAX_PARTS = 16


def parallel_parts() -> int:
    """Return the number of parts of a batch that a loop runs at the same time.

    It is 1 unless TensorFlow runs each operation on one thread, by
    `tf.config.threading.set_intra_op_parallelism_threads(1)`, and sees no GPU. It is then the
    number of operations that TensorFlow runs at the same time, at most `MAX_PARTS`, divided among
    the replicas of this process.
    """
    threading = tf.config.threading
    if (
        threading.get_intra_op_parallelism_threads() != 1
        or tf.executing_eagerly()
        or not branches_allowed()
        or tf.config.get_visible_devices("GPU")
    ):
        return 1
    threads = threading.get_inter_op_parallelism_threads() or _count_cores()
    replicas = 1
    if tf.distribute.has_strategy():
        replicas = len(tf.distribute.get_strategy().extended.worker_devices)
    return max(1, min(MAX_PARTS, threads // replicas))


def _count_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parts(
    run: Callable[[BoundUpdate, State], Unrolled], update: BoundUpdate, state: State
) -> Unrolled:
    """Return the result of a loop that runs in `parallel_parts` parts of the batch.

    Args:
        run: The loop, a function of an update and the first state whose samples are independent.
        update: The update, its drives or drive inputs those of the whole batch.
        state: x(0), a tensor `[N, ...]` or a structure of them.
    """
    count = parallel_parts()
    if count == 1:
        return run(update, state)
    size = tf.nest.flatten(state)[0].shape[0]
    if size is None:
        size = batch_size(state)
    sizes = [(size + count - 1 - part) // count for part in range(count)]

    def divided(structure):
        """Return a structure of tensors `[N, ...]` as one structure for each part."""
        # TensorFlow splits along the first axis without a copy.
        split = [tf.split(z, sizes, num=count) for z in tf.nest.flatten(structure)]
        return [
            tf.nest.pack_sequence_as(structure, [pieces[part] for pieces in split])
            for part in range(count)
        ]

    results = [
        run(update._replace(drives=drives, drive_inputs=(*inputs, *update.drive_inputs[1:])), start)
        for drives, inputs, start in zip(
            divided(update.drives), divided(update.drive_inputs[:1]), divided(state), strict=True
        )
    ]
    return tf.nest.map_structure(lambda *pieces: tf.concat(pieces, axis=0), *results)
