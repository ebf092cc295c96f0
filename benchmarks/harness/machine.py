"""The machine and the software of a measurement."""

import datetime
import functools
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.harness.devices import gpu_names
from benchmarks.harness.process_settings import count_cores

ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy", "tensorflow", "keras", "torch", "onnxruntime", "ai-edge-litert")
# What decides how fast a product of float32, bfloat16 or int8 can be.
FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")


def describe_machine() -> str:
    """Return the processor's name and the number of cores that this process may use."""
    return f"{processor()}, {count_cores()} cores"


@functools.cache
def processor() -> str:
    """Return the processor's name."""
    names = _cpu_lines("model name")
    return names[0] if names else platform.machine()


@functools.cache
def machine_facts() -> dict[str, Any]:
    """Return the processor, its flags, and the versions and the commit that are measured."""
    known = set(" ".join(_cpu_lines("flags")[:1]).split())
    return {
        "processor": processor(),
        "cores": count_cores(),
        "gpus": gpu_names(),
        "flags": [flag for flag in FLAGS if flag in known],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    """Return the date and the time, with its zone."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """Return the commit of the checkout, with a hash of changes that are not committed."""
    head = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD")
    if head is None or changes is None:
        return None
    digest = hashlib.sha256(changes.encode()).hexdigest()[:12]
    return head.strip() + (f" with changes {digest}" if changes else "")


def load_average() -> float:
    """Return the mean number of running processes in the last minute."""
    return os.getloadavg()[0]


def clock_megahertz() -> list[float]:
    """Return the present clock of each core; empty where the system does not tell."""
    return [float(text) for text in _cpu_lines("cpu MHz")]


def _cpu_lines(field: str) -> list[str]:
    """Return the values of a field of /proc/cpuinfo, one for each core."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == field]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace"
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
