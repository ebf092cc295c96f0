"""Peak resident memory of a candidate, in its process."""

import gc
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.candidate import build


class PeakMemory:
    """Builds another candidate and runs it once, and reads the peak memory of its process.

    Args:
        target: The other candidate, `module:Class`. Its module is imported before the start.
        arguments: Its arguments, which are in memory before the start too.
    """

    def __init__(self, target: str, arguments: Mapping[str, Any]):
        importlib.import_module(target.split(":")[0])
        self.idle = start_peak()
        self.candidate = build(target, arguments)

    def peak_over_idle(self) -> int:
        """Run the candidate, and return the peak since the start, less the start, in bytes."""
        self.candidate.run()
        return read_memory("VmHWM") - self.idle


def start_peak() -> int:
    """Reset the process's peak memory, and return its current resident memory in bytes."""
    gc.collect()
    # The imports may have had a higher peak. Without permission for the reset they are included.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the peak includes the imports: {error}", file=sys.stderr)
    return read_memory("VmRSS")


def read_memory(field: str) -> int:
    """Return the value of a line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
