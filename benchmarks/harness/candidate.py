"""What is timed: an object in a process of its own, and the call of its method `run`."""

import importlib
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple


class Candidate(NamedTuple):
    """One of the things that a benchmark compares.

    The class is named and not given, so that the process of the benchmark never imports what the
    candidate needs: TensorFlow and PyTorch do not share a process. Candidates with the same
    `target` and `arguments` share one, such as the thresholds of one traced model.

    Attributes:
        target: `module:Class`. The method `run` is timed; if it returns a number, that is taken as
            its seconds.
        arguments: Keyword arguments of the class; anything that can be pickled.
        call: Keyword arguments of `run`.
    """

    target: str
    arguments: Mapping[str, Any] = {}
    call: Mapping[str, Any] = {}

    @property
    def process_key(self) -> bytes:
        """What the candidates of one process have in common."""
        return pickle.dumps((self.target, sorted(self.arguments.items())))


def build(target: str, arguments: Mapping[str, Any]) -> Any:
    """Return the object of a candidate, in its own process."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)(**arguments)
