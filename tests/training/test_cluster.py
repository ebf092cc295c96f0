"""The workers that the environment names."""

import json

import pytest

from iterconv.command_errors import UserError
from training.cluster import Cluster, expand_hosts, find_cluster

PAIR = ["a:1", "b:2"]


def config(cluster, kind="worker", index=0):
    text = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    return find_cluster({"TF_CONFIG": text})


def test_workers_of_tf_config():
    assert find_cluster({}) is None
    assert find_cluster({"TF_CONFIG": ""}) is None
    assert config({"worker": PAIR}, index=1) == Cluster(PAIR, 1)
    # A chief is the first of all workers.
    chief = {"chief": ["a:1"], "worker": ["b:2"]}
    assert config(chief, "chief") == Cluster(PAIR, 0)
    assert config(chief, "worker") == Cluster(PAIR, 1)
    again = Cluster(PAIR, 1).to_config()
    assert find_cluster({"TF_CONFIG": again, "SLURM_PROCID": "0"}) == Cluster(PAIR, 1)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"cluster": {"worker": ["a:1"]}}', '{"cluster": [], "task": 1}'],
)
def test_what_is_no_tf_config(text):
    with pytest.raises(UserError, match="TF_CONFIG must be"):
        find_cluster({"TF_CONFIG": text})


@pytest.mark.parametrize(
    ("cluster", "index"),
    [
        ({"worker": PAIR}, 2),
        ({"worker": PAIR}, -1),
        ({"worker": PAIR, "ps": ["c:3"]}, 0),
        ({"worker": ["a:1", "b"]}, 0),
        ({"worker": ["a:1", 2]}, 0),
    ],
)
def test_tasks_that_are_no_workers(cluster, index):
    with pytest.raises(UserError, match="TF_CONFIG must be"):
        config(cluster, index=index)


SLURM = {
    "SLURM_PROCID": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[2,10]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip


def test_tasks_of_slurm_have_its_order():
    addresses, worker = find_cluster(SLURM)
    assert worker == 2
    hosts, ports = zip(*(address.split(":") for address in addresses), strict=True)
    assert hosts == ("node2", "node2", "node10", "node10")
    assert ports[0] == ports[2] != ports[1]
    # Other steps and jobs on the same nodes.
    taken = set(addresses)
    for job, step in ((7, 1), (7, 2), (7, 7), (8, 0), (8, 1), (46, 7)):
        others, _ = find_cluster({**SLURM, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        assert not taken & set(others)
        taken |= set(others)
    assert all(12000 <= int(address.split(":")[1]) < 32768 for address in taken)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("m", ["m"]),
        ("n[08-10],m", ["n08", "n09", "n10", "m"]),
        ("a-1,b[1,3-4]", ["a-1", "b1", "b3", "b4"]),
    ],
)
def test_lists_of_hosts(text, hosts):
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(
    "changed",
    [
        {"SLURM_STEP_NODELIST": "node[2"},
        {"SLURM_STEP_NODELIST": "node[a-b]"},
        {"SLURM_STEP_NODELIST": ""},
        {"SLURM_STEP_TASKS_PER_NODE": "2"},
        {"SLURM_STEP_TASKS_PER_NODE": "x"},
        {"SLURM_PROCID": "4"},
    ],
)
def test_variables_of_slurm_that_cannot_be_read(changed):
    with pytest.raises(UserError, match="Slurm's variables"):
        find_cluster({**SLURM, **changed})
