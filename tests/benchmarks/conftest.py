"""Fixtures of the benchmarks' tests."""

import os

import pytest


@pytest.fixture(autouse=True)
def one_core_for_pytorch(request):
    """Give the processes that a test of PyTorch starts one core.

    Where other programs use the cores, PyTorch's threads wait for each other up to a hundred times
    as long as they compute.
    """
    if request.node.get_closest_marker("pytorch") is None:
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)
