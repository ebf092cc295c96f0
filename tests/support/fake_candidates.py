"""Candidates of a benchmark with known times, and others that go wrong."""

import os
import sys
import threading
import time

# Longer than a turn repeats a run: one call is one turn.
ONE_TURN = 0.21


class Sleeper:
    """Takes a known time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def run(self):
        time.sleep(self.seconds)


class Scripted:
    """Claims given seconds, one value in each turn; the first call, to warm up, claims none."""

    def __init__(self, seconds):
        self.seconds = [0.0, *seconds]

    def run(self):
        time.sleep(ONE_TURN)
        return self.seconds.pop(0)


class Counter:
    """Counts its runs."""

    def __init__(self):
        self.count = 0

    def run(self):
        self.count += 1

    def runs(self):
        return self.count


class ScriptedControl:
    """A control computation with given rates."""

    def __init__(self, rates):
        self.rates = list(rates)

    def rate(self):
        return self.rates.pop(0)


class Diary:
    """Writes what is called, with its process."""

    def __init__(self, file, letter):
        self.file, self.letter = file, letter

    def run(self, mark=""):
        time.sleep(ONE_TURN)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(f"{self.letter}{mark} {os.getpid()}\n")


class Spinner:
    """Has a thread that never sleeps, as some pools of threads have."""

    def __init__(self):
        threading.Thread(target=self._spin, daemon=True).start()

    def _spin(self):
        while True:
            pass

    def run(self):
        pass


class Failing:
    """Raises an exception in a turn."""

    def run(self):
        raise ValueError("no such batch")


class Dying:
    """Ends its process: with an exit code, or by a signal."""

    def __init__(self, code=0, signal=0):
        self.code, self.signal = code, signal

    def run(self):
        print("the last words", file=sys.stderr, flush=True)
        if self.signal:
            os.kill(os.getpid(), self.signal)
        os._exit(self.code)


class Surroundings:
    """Tells what its process is like."""

    def variables(self):
        return dict(os.environ)

    def modules(self):
        return sorted({name.split(".")[0] for name in sys.modules})

    def numpy_flushes(self):
        import numpy as np

        return bool((np.full(1000, 1e-39, np.float32) * np.float32(1) == 0).all())

    def torch_flushes(self):
        import torch

        torch.set_num_threads(2)
        # So many numbers are shared between the threads.
        return bool((torch.full((10_000_000,), 1e-39) * 1 == 0).all())
