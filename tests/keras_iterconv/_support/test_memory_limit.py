"""The memory that a process may use, with limits set in a process of its own."""

import os
import subprocess
import sys

import pytest

from keras_iterconv._support import memory_limit
from tests.support.processes import SECONDS

SCRIPT = """
import importlib.util, resource, sys
from pathlib import Path

# Without TensorFlow, which needs more than the limit.
spec = importlib.util.spec_from_file_location("memory_limit", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for name in ("RLIMIT_AS", "RLIMIT_DATA"):
    resource.setrlimit(getattr(resource, name), (500 * 2**20, resource.RLIM_INFINITY))
    status = Path("/proc/self/status").read_text().splitlines()
    used = {line.split(":")[0]: int(line.split()[1]) for line in status if line.endswith("kB")}
    print(module.memory_limit(), 500 * 2**20 - 1024 * used[{"A": "VmSize", "D": "VmData"}[name[7]]])
    resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY,) * 2)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it is Linux's")
def test_the_limits_of_the_process():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, memory_limit.__file__],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    for line in run.stdout.splitlines():
        found, left = map(int, line.split())
        assert found == pytest.approx(left, abs=2**21)


def test_the_limit_of_a_container(tmp_path, monkeypatch):
    limits = [tmp_path / name for name in ("missing", "max", "some")]
    limits[1].write_text("max\n")
    limits[2].write_text("123456789\n")
    monkeypatch.setattr(memory_limit, "_GROUP_LIMITS", tuple(map(str, limits[:2])))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_limit.memory_limit() == machine
    monkeypatch.setattr(memory_limit, "_GROUP_LIMITS", tuple(map(str, limits)))
    assert memory_limit.memory_limit() == 123456789
