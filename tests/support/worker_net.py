"""Nets that several workers train, compared with one process.

`python -m tests.support.worker_net full PATH 1 2 4` trains by one process, two workers and four,
and prints the largest differences. All compute in float64, on batches of uneven shares. Each worker
writes its variables, and the results of `fit`, `evaluate` and `predict`, into
`PATH-WORKERS-WORKER.npz`.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment first

import keras
import numpy as np
import tensorflow as tf

from tests.support.processes import as_workers
from training.cluster import find_cluster
from training.distribution import share_value
from training.worker_watch import watched

# With a step size of 1, a ReLU at its fixed point has a pre-activation of zero but for rounding, so
# that its slope, and with it the gradient, depends on the order of sums.
ADAPTIVE = {"threshold": 0.05, "step_size": 0.5, "synchronized": True}
# Steps, and by name the settings of `create_model` and the coupling.
SIZES = {
    "small": (
        3,
        {
            "nais_adaptive": ({"blocks": 1, "filters": (4,), **ADAPTIVE}, None),
            "resnet_w8": (
                {"blocks": 2, "width": 2, "lipschitz_cap": 0.95, "synchronized": True},
                0.9,
            ),
        },
    ),
    "full": (
        20,
        {
            "nais_mnist": ({}, None),  # It has no normalisation to synchronize.
            "nais_adaptive": (ADAPTIVE, None),
            "resnet_w8": ({"synchronized": True}, 0.9),
            "pcr_w8": ({"synchronized": True}, None),
        },
    ),
}
SIDE, CLASSES, BATCH = 8, 4, 9
TOLERANCE = 1e-9


class Comparison(NamedTuple):
    """A net of several workers, compared with that of one process.

    Attributes:
        net: The name of the net.
        workers: Number of workers.
        bit_equal: Whether all workers have the same bits in all arrays.
        difference: Largest absolute difference of a number to that of one process.
        depths_equal: Whether the depths of all images are those of one process.
    """

    net: str
    workers: int
    bit_equal: bool
    difference: float
    depths_equal: bool

    @property
    def holds(self):
        """Whether the workers compute what one process computes."""
        return self.bit_equal and self.depths_equal and self.difference <= TOLERANCE


def train(strategy, name, settings, coupling, steps):
    """Return the variables, losses, predictions and depths after some steps, by name."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = ki.create_model(name, (SIDE, SIDE, 3), CLASSES, **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=1.0)
        model.compile(optimizer, loss, metrics=["accuracy"], coupling=coupling)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH * steps, SIDE, SIDE, 3))
    # Of several contrasts, so that images stop at different depths.
    images *= np.resize(np.geomspace(0.05, 4, BATCH), len(images))[:, None, None, None]
    labels = rng.integers(0, CLASSES, BATCH * steps)
    # The last batch has one image, so that all workers but one have none.
    images, labels = images[: -BATCH + 1], labels[: -BATCH + 1]
    options = {"batch_size": BATCH, "verbose": 0}
    history = model.fit(images, labels, shuffle=False, **options).history
    return {
        **{f"{i} {variable.path}": variable.numpy() for i, variable in enumerate(model.variables)},
        **{f"fit {key}": np.asarray(values) for key, values in history.items()},
        "evaluate": np.asarray(model.evaluate(images, labels, **options)),
        "predict": model.predict(images, **options),
        "depth": ki.with_depth(model)(images[:BATCH])["depth"].numpy(),
    }


def train_all(size, path):
    """Train the nets of a size, and write into a file of NumPy."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    # It takes half of the time of small nets.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": size == "small"})
    cluster = find_cluster()
    number, count = (0, 1) if cluster is None else (cluster.worker, len(cluster.addresses))
    # One for all nets: the collectives of a second strategy have the keys of the first.
    several = tf.distribute.MultiWorkerMirroredStrategy
    strategy = tf.distribute.get_strategy() if cluster is None else several()
    steps, nets = SIZES[size]
    result = {}
    for name, (settings, coupling) in nets.items():
        for key, value in train(strategy, name, settings, coupling, steps).items():
            result[f"{name}: {key}".replace("/", "|")] = value
    np.savez(file_of(path, count, number), **result)
    # The launcher ends the others soon after the first worker.
    share_value(strategy, 0.0)


def file_of(path, workers, number):
    """Return the file of a worker."""
    return Path(f"{path}-{workers}-{number}.npz")


def command_of(size, path, workers):
    """Return the command that trains by a number of workers."""
    command = ["-m", "tests.support.worker_net", size, str(path)]
    return as_workers(workers, *command) if workers > 1 else [sys.executable, *command]


def compare(size, path, workers):
    """Return a `Comparison` for each net that one process and a number of workers have trained."""
    alone = np.load(file_of(path, 1, 0))
    files = [np.load(file_of(path, workers, number)) for number in range(workers)]
    found = []
    for name in SIZES[size][1]:
        keys = [key for key in alone.files if key.startswith(f"{name}: ")]
        assert len(keys) > 5
        bits = {key: {file[key].tobytes() for file in files} for key in keys}
        differences = [np.abs(files[0][key] - alone[key]).max(initial=0) for key in keys]
        depths = f"{name}: depth"
        if "threshold" in SIZES[size][1][name][0]:
            assert len(np.unique(alone[depths])) > 1
        found.append(
            Comparison(
                name,
                workers,
                all(len(kinds) == 1 for kinds in bits.values()),
                # Not `max`, which may leave out a NaN; NaN fails each comparison.
                float(np.max(differences)),
                np.array_equal(files[0][depths], alone[depths]),
            )
        )
    return found


HOUR = 3600


def main(size, path, *counts):
    """Train and compare; return the exit status."""
    rows = []
    for workers in map(int, counts):
        begin = time.monotonic()
        if status := subprocess.run(command_of(size, path, workers), timeout=HOUR).returncode:
            return status
        print(f"{workers} trained in {time.monotonic() - begin:.0f} s", flush=True)
        rows += compare(size, path, workers) if workers > 1 else []
    for row in rows:
        print(
            f"{row.net}, {row.workers} workers: {'' if row.bit_equal else 'not '}bit-equal among "
            f"them, at most {row.difference:.1e} from one process, depths "
            f"{'equal' if row.depths_equal else 'differ'}"
        )
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    if len(sys.argv) > 3:
        sys.exit(main(*sys.argv[1:]))
    with watched(find_cluster()):
        train_all(*sys.argv[1:])
