"""A worker of `benchmarks.all_reduce`: it sums tensors, and the chief writes the times."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import keras_iterconv  # noqa: F401  # isort: skip  # settles TensorFlow's environment first

import tensorflow as tf

from training.cluster import find_cluster
from training.worker_watch import watched

WARM = 3


def main(rounds: int, path: Path, sizes: Sequence[int]) -> None:
    """Time the sums of all sizes.

    Args:
        rounds: Number of timed sums of each size.
        path: The file for the seconds of each sum, by size.
        sizes: Numbers of float32 in a tensor.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    seconds = {}
    for size in sizes:

        def add(size: int = size) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones([size]))
            return total[0]

        step = tf.function(lambda add=add: strategy.run(add))
        times = []
        for _ in range(WARM + rounds):
            begin = time.perf_counter()
            total = strategy.experimental_local_results(step())[0].numpy()
            times.append(time.perf_counter() - begin)
            if total != strategy.num_replicas_in_sync:
                raise RuntimeError(f"the sum of ones over the workers is {total}")
        seconds[size] = times[WARM:]
    if strategy.cluster_resolver.task_id == 0:
        path.write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    with watched(find_cluster()):
        main(int(sys.argv[1]), Path(sys.argv[2]), [int(size) for size in sys.argv[3:]])
