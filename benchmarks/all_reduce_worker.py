"""A worker of `benchmarks.all_reduce`: it sums tensors, and the chief writes the times."""

import json
import os
import sys
import time
from pathlib import Path

import keras_iterconv  # noqa: F401  # isort: skip  # settles TensorFlow's environment first

import tensorflow as tf

from benchmarks.all_reduce import SIZES

WARM = 3


def main(rounds: int, path: Path) -> None:
    """Time the sums of all sizes.

    Args:
        rounds: Number of timed sums of each size.
        path: The file for the seconds of each sum, by size.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    seconds = {}
    for size in SIZES:

        def add(size: int = size) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones([size]))
            return total[:1]

        step = tf.function(lambda add=add: strategy.run(add))
        times = []
        for _ in range(WARM + rounds):
            begin = time.perf_counter()
            strategy.experimental_local_results(step())[0].numpy()
            times.append(time.perf_counter() - begin)
        seconds[size] = times[WARM:]
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
        path.write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
