"""The workers of a run: their addresses, from `TF_CONFIG` or from Slurm's variables.

This module does not load TensorFlow, since `training.launch` uses it too.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from iterconv.command_errors import UserError

# Variable of the environment of a launcher's workers, with the number of the launcher's process.
LAUNCHER = "ITERCONV_LAUNCHER"
# Linux gives the ports from here up to 32768 to no outgoing connection. A step of Slurm takes one
# of 320 blocks of 64: two steps of a job differ, and so do jobs that follow each other.
_FIRST_PORT, _BLOCK, _BLOCKS, _STEPS = 12000, 64, 320, 8
# A prefix and numbers in brackets: `node[1-3,7]`.
_HOSTS = re.compile(r"([^,\[\]]+)(?:\[([^\[\]]+)\])?(?:,|$)")


class Cluster(NamedTuple):
    """The workers of a run, as this process sees them.

    Attributes:
        addresses: `"HOST:PORT"` of each worker; the first is the chief, which writes the run's
            folder.
        worker: The number of this worker, from 0.
    """

    addresses: Sequence[str]
    worker: int

    def others(self) -> dict[str, str]:
        """Return the addresses of the other workers, by names for messages."""
        return {
            f"worker {number} ({address})": address
            for number, address in enumerate(self.addresses)
            if number != self.worker
        }

    def to_config(self) -> str:
        """Return the value of `TF_CONFIG` for this worker."""
        task = {"type": "worker", "index": self.worker}
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task})


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the workers that the environment names; None where it names none.

    Args:
        environment: The environment. `TF_CONFIG` goes before Slurm's variables.

    Raises:
        UserError: `TF_CONFIG` or a variable of Slurm cannot be read.
    """
    if environment.get("TF_CONFIG"):
        return _from_config(environment["TF_CONFIG"])
    if "SLURM_PROCID" in environment:
        return _from_slurm(environment)
    return None


def _from_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        addresses = [*jobs.get("chief", ()), *jobs.get("worker", ())]
        before = len(jobs.get("chief", ())) if task["type"] == "worker" else 0
        number = int(task["index"]) + before
        if set(jobs) - {"chief", "worker"} or task["type"] not in jobs:
            raise ValueError("it has other jobs than chief and worker")
        if not all(re.fullmatch(r".+:\d{1,5}", each) for each in addresses):
            raise ValueError("an address is not HOST:PORT")
        if not 0 <= number < len(addresses):
            raise ValueError(f"it has no worker {number}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            'TF_CONFIG must be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": '
            f'"worker", "index": NUMBER}}}}: {text} ({error})'
        ) from error
    return Cluster(addresses, number)


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """Return the tasks of a step of Slurm.

    `tf.distribute.cluster_resolver.SlurmClusterResolver` sorts the hosts by their names, so that
    it gives `node10` the place of `node2`, and it needs GPUs.
    """
    try:
        hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
        tasks = _expand_tasks(environment["SLURM_STEP_TASKS_PER_NODE"])
        job, step = (int(environment.get(f"SLURM_{name}_ID", 0)) for name in ("JOB", "STEP"))
        worker = int(environment["SLURM_PROCID"])
        placed = [(host, i) for host, n in zip(hosts, tasks, strict=True) for i in range(n)]
        if not 0 <= worker < len(placed):
            raise ValueError(f"there is no task {worker}")
    except (ValueError, KeyError) as error:
        raise UserError(
            "Slurm's variables SLURM_PROCID, SLURM_STEP_NODELIST and SLURM_STEP_TASKS_PER_NODE "
            f"cannot be read: start the workers with srun, or set TF_CONFIG ({error})"
        ) from error
    first = _FIRST_PORT + (job * _STEPS + step) % _BLOCKS * _BLOCK
    return Cluster([f"{host}:{first + i}" for host, i in placed], worker)


def expand_hosts(text: str) -> list[str]:
    """Return the hosts of a list of Slurm: `n[08-10],m` is n08, n09, n10, m.

    Raises:
        ValueError: The text is no such list.
    """
    hosts: list[str] = []
    end = 0
    for found in _HOSTS.finditer(text):
        if found.start() != end:
            break
        end = found.end()
        prefix, ranges = found[1], found[2]
        for part in ranges.split(",") if ranges else [""]:
            low, _, high = part.partition("-")
            numbers = range(int(low), int(high or low) + 1) if part else [None]
            hosts += [
                prefix if number is None else f"{prefix}{number:0{len(low)}}" for number in numbers
            ]
    if end != len(text) or not hosts:
        raise ValueError(f"no list of hosts: {text}")
    return hosts


def _expand_tasks(text: str) -> list[int]:
    """Return the number of tasks of each node: `2(x3),1` is 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(f"no numbers of tasks: {text}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
