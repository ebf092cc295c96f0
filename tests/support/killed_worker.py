"""A worker that is killed by `kill -9` at chosen moments: `python -m tests.support.killed_worker`.

For each moment two workers start by hand, as on two machines, where no launcher ends the other one.
The command measures how long that one goes on, continues the run by `--resume` with one, two or
three workers, and compares the history with that of a run of one process.
"""

import contextlib
import csv
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.processes import ROOT, SECONDS, process
from training.cluster import Cluster, find_cluster

MODULE = "tests.support.killed_worker"
EPOCHS, STEPS = 3, 14
# The tenth step of each epoch writes a checkpoint within it.
OPTIONS = {
    "model": "resnet_sh_bn", "dataset": "digits", "limit_train": 600, "batch_size": 45,
    "max_unroll": 2, "epochs": EPOCHS, "learning_rate": 0.005, "synchronized": True,
}  # fmt: skip
# A worker that goes on for longer hangs.
LONGEST = 60


class Moment(NamedTuple):
    """When which worker is killed.

    Attributes:
        worker: Number of the worker.
        function: `MODULE:NAME` or `MODULE:CLASS.NAME` of the function before whose call it dies.
        call: Number of the call, from 1.
        finished: Finished epochs that `--resume` must keep at least.
        resume: Number of workers that continue the run.
    """

    worker: int
    function: str
    call: int
    finished: int
    resume: int


_BEGIN = "training.callbacks:RunRecorder.on_train_batch_begin"
_END = "training.callbacks:RunRecorder.on_train_batch_end"
MOMENTS = {
    "before the first step": Moment(0, _BEGIN, 1, 0, 2),
    "within the second epoch": Moment(1, _END, STEPS + 11, 1, 3),
    "at a checkpoint within it": Moment(0, "training.callbacks:save_epoch_state", 2, 1, 1),
    "in the validation after it": Moment(1, "training.session:_Session.evaluate", 2, 1, 2),
    # Best and last of the first epoch, and the next one.
    "between its history and its checkpoint": Moment(
        0, "training.callbacks:save_checkpoint", 3, 1, 2
    ),
    "in the last epoch": Moment(1, _BEGIN, 2 * STEPS + 5, 2, 2),
    "in the evaluation at the end": Moment(0, "training.run_result:finish", 1, 3, 2),
}


def flags(**options):
    """Return settings as options of the command line."""
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    return [
        text
        for flag, value in given.items()
        for text in ([flag] if value is True else [flag, str(value)])
    ]


def launched(workers, *arguments):
    """Return the command of the launcher."""
    command = [sys.executable, "-m", "training.launch", "--workers", str(workers), "--", "fit"]
    return [*command, *arguments]


def run_quietly(command):
    """Run a command, and show its errors where it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def history(folder):
    """Return the rows of `history.csv`, an array of floats for each."""
    if not (folder / "history.csv").exists():
        return []
    with open(folder / "history.csv", encoding="utf-8") as stream:
        return [[float(value) for value in row.values()] for row in csv.DictReader(stream)]


def finished(folder):
    """Return the number of epochs in the last checkpoint."""
    with zipfile.ZipFile(folder / "last.keras") as archive:
        return int(archive.read("training.json").decode().split(":")[1].strip(" }"))


def be_worker(name, folder):
    """Train as a worker, and die at the moment if it is this one's."""
    moment = MOMENTS[name]
    if find_cluster().worker == moment.worker:
        module, _, path = moment.function.partition(":")
        *outer, function = path.split(".")
        owner = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        called, calls = getattr(owner, function), 0

        def count(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment.call:
                Path(f"{folder}.killed").write_text(str(time.time()), encoding="utf-8")
                os.kill(os.getpid(), signal.SIGKILL)
            return called(*args, **kwargs)

        setattr(owner, function, count)
    from training.fit import main

    checkpoints = ["--checkpoint-minutes", "0"]
    sys.argv = ["fit", *flags(**OPTIONS), "--strategy", "multiworker", *checkpoints]
    sys.argv += ["--output", folder]
    main()


def started_by_hand(command, outputs):
    """Return contexts of two workers without a launcher; their output goes to files."""
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in (one, two)]
    return [
        process(
            command,
            2 * SECONDS,
            env={**os.environ, "TF_CONFIG": Cluster(addresses, number).to_config()},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        for number, output in enumerate(outputs)
    ]


def seconds_to_the_end(name, folder):
    """Train by two workers without a launcher, and return how long the one that is left goes on."""
    moment = MOMENTS[name]
    command = [sys.executable, "-m", MODULE, name, str(folder)]
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
        workers = [stack.enter_context(each) for each in started_by_hand(command, outputs)]
        status = workers[moment.worker].wait(SECONDS)
        outputs[moment.worker].seek(0)
        assert status == -signal.SIGKILL, outputs[moment.worker].read()
        killed = float(Path(f"{folder}.killed").read_text(encoding="utf-8"))
        other = 1 - moment.worker
        status = workers[other].wait(SECONDS)
        seconds = time.time() - killed
        outputs[other].seek(0)
        said = outputs[other].read()
    assert status == 1, said
    assert "--resume and the run's folder" in said
    return seconds


def resume(name, folder, alone):
    """Continue a run, and compare it with that of one process.

    Returns the number of kept epochs, and the largest difference of a loss or an accuracy.

    Args:
        name: The moment at which a worker was killed.
        folder: The run's folder.
        alone: The rows of the run of one process.
    """
    moment = MOMENTS[name]
    before, kept = history(folder), finished(folder)
    assert kept >= moment.finished
    # The history is written before the checkpoint.
    assert kept <= len(before) <= kept + 1
    run_quietly(launched(moment.resume, "--resume", str(folder)))
    after = history(folder)
    assert after[:kept] == before[:kept]
    assert len(after) == len(alone) == EPOCHS
    # Epoch, loss and accuracy, and those of the validation: float32, in another order of sums.
    differences = [
        abs(one - other)
        for row, reference in zip(after, alone, strict=True)
        for one, other in zip(row[:5], reference[:5], strict=True)
    ]
    difference = float(np.max(differences))  # Not `max`, which may leave out a NaN.
    assert difference < 1e-5, difference
    return kept, difference


def main():
    """Try all moments."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        command = [sys.executable, "-m", "training.fit", *flags(**OPTIONS)]
        run_quietly([*command, "--output", str(folder / "alone")])
        alone = history(folder / "alone")
        for number, (name, moment) in enumerate(MOMENTS.items()):
            run = folder / str(number)
            seconds = seconds_to_the_end(name, run)
            assert seconds < LONGEST
            kept, difference = resume(name, run, alone)
            print(
                f"worker {moment.worker} killed {name}: the other ended after {seconds:.0f} s; "
                f"{kept} of {EPOCHS} epochs kept, all after --resume with "
                f"{moment.resume} of them, within {difference:.0e} of one process",
                flush=True,
            )


if __name__ == "__main__":
    if "TF_CONFIG" in os.environ:
        be_worker(*sys.argv[1:])
    else:
        main()
