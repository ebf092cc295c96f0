"""Train nets by several workers or one: `python -m tests.support.worker_net WORKERS SIZE PATH`.

They train in float64 on batches of uneven shares. Each worker writes all variables and the depths
of the images into `PATH-WORKER.npz`.
"""

import json
import os
import sys
import time
from pathlib import Path

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment first

import keras
import numpy as np
import tensorflow as tf

from training.launch import run_workers

# With a step size of 1, a ReLU at its fixed point has a pre-activation of zero but for rounding, so
# that its slope, and with it the gradient, depends on the order of sums.
ADAPTIVE = {"threshold": 0.05, "step_size": 0.5}
# Steps, and by name the settings of `create_model` and the coupling.
SIZES = {
    "small": (
        3,
        {
            "nais_adaptive": ({"blocks": 1, "filters": (4,), **ADAPTIVE}, None),
            "resnet_w8": ({"blocks": 2, "width": 2}, 0.9),
        },
    ),
    "full": (
        20,
        {
            "nais_mnist": ({}, None),
            "nais_adaptive": (ADAPTIVE, None),
            "resnet_w8": ({}, 0.9),
            "pcr_w8": ({}, None),
        },
    ),
}
SIDE, CLASSES, BATCH = 8, 4, 9


def train(strategy, name, settings, coupling, steps):
    """Return the variables and the depths after some steps."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = ki.create_model(name, (SIDE, SIDE, 3), CLASSES, synchronized=True, **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=1.0)
        model.compile(optimizer, loss, metrics=["accuracy"], coupling=coupling)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH * steps, SIDE, SIDE, 3))
    labels = rng.integers(0, CLASSES, BATCH * steps)
    # The last batch has one image, so that all workers but one have none.
    images, labels = images[: -BATCH + 1], labels[: -BATCH + 1]
    history = model.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0).history
    depth = ki.with_depth(model)(images[:BATCH])["depth"].numpy()
    losses = {name: np.asarray(values) for name, values in history.items()}
    return {f"{i} {v.path}": v.numpy() for i, v in enumerate(model.variables)}, depth, losses


def train_all(size, path):
    """Train the nets of a size, and write into a file of NumPy."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    # One for all nets: the collectives of a second strategy have the keys of the first.
    several = "TF_CONFIG" in os.environ
    distribute = tf.distribute
    strategy = distribute.MultiWorkerMirroredStrategy() if several else distribute.get_strategy()
    steps, nets = SIZES[size]
    result = {}
    for name, (settings, coupling) in nets.items():
        variables, depth, losses = train(strategy, name, settings, coupling, steps)
        for key, value in {**variables, **losses, "depth": depth}.items():
            result[f"{name} {key}".replace("/", "|")] = value
    if not several:
        np.savez(f"{path}-alone.npz", **result)
        return
    config = json.loads(os.environ["TF_CONFIG"])
    number, count = config["task"]["index"], len(config["cluster"]["worker"])
    np.savez(f"{path}-{number}.npz", **result)
    # The launcher ends the others soon after the first worker.
    files = [Path(f"{path}-{i}.npz") for i in range(count)]
    while number == 0 and not all(file.exists() for file in files):
        time.sleep(0.1)


if __name__ == "__main__":
    if "TF_CONFIG" in os.environ or sys.argv[1] == "1":
        train_all(*sys.argv[2:])
    else:
        command = [sys.executable, "-m", "tests.support.worker_net", *sys.argv[1:]]
        sys.exit(run_workers(command, int(sys.argv[1])))
