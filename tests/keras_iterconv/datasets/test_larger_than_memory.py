"""A folder whose images do not fit into the memory that a process may use trains there."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import ROOT, SECONDS

# Pictures of 512x512 take a kilobyte as files, and 256 kilobytes as images: 262 MB in all.
SIDE, COUNT = 512, 1000
SCRIPT = f"""
import os, re, resource, sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_iterconv as ki

SIDE, COUNT = {SIDE}, {COUNT}

def write(folder, count):
    for label in (0, 1):
        (folder / str(label)).mkdir(parents=True)
        pixels = np.full((SIDE, SIDE), 60 + 120 * label, np.uint8)
        first = folder / str(label) / "0.png"
        Image.fromarray(pixels).save(first)
        for number in range(1, count // 2):
            os.link(first, first.with_name(f"{{number}}.png"))

def used(what):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{{what}}:\\s+(\\d+) kB", status)[1])

def train(folder):
    data = ki.datasets.load_folder(folder, image_size=SIDE)
    net = keras.Sequential(
        [
            keras.Input(data.input_shape),
            keras.layers.Conv2D(2, 16, strides=16),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    steps = data.steps_per_epoch(16)
    net.fit(data.training_batches(16), steps_per_epoch=steps, shuffle=False, verbose=0)
    accuracy = net.evaluate(data.evaluation_batches("test", 16), verbose=0)[1]
    return type(data.train.images).__name__, accuracy

root = Path(sys.argv[1])
write(root / "small", 64)
write(root / "large", COUNT)
train(root / "small")
# TensorFlow has its threads and buffers now. Three quarters of the images would fit into the rest.
left = 3 * COUNT * SIDE**2 // 4
resource.setrlimit(resource.RLIMIT_DATA, (used("VmData") + left,) * 2)
kind, accuracy = train(root / "large")
# The limit would end a training in memory, where the images are read.
ki.datasets.assembly.SHARE_OF_MEMORY = 100
try:
    train(root / "large")
    fits = True
except MemoryError:
    fits = False
print(kind, accuracy, fits)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it is Linux's")
def test_a_folder_larger_than_the_memory_trains(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    kind, accuracy, fits_in_memory = run.stdout.split()[-3:]
    assert kind == "StoredImages"
    assert float(accuracy) == 1
    assert fits_in_memory == "False"
