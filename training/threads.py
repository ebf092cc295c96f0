"""How TensorFlow divides the work of a run among its threads."""

import contextlib

import tensorflow as tf

from keras_iterconv.models.registry import ARCHITECTURES


def run_parts_in_parallel(model: str) -> None:
    """Give each operation of a net of loops one thread, so that parts of a batch run in parallel.

    Other nets are faster if each operation has all threads. A program in which TensorFlow runs
    already keeps its threads.

    Args:
        model: The name of the net.
    """
    architecture = ARCHITECTURES.get(model)
    if architecture is None or not architecture.mostly_loops:
        return
    # There the processor prepares the batches, and the loops run whole batches.
    if tf.config.list_physical_devices("GPU"):
        return
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
