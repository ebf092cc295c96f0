"""The threads that a run sets: one for each operation of a net of loops, else as they were."""

import pytest
import tensorflow as tf

from training.threads import run_parts_in_parallel


@pytest.fixture
def given(monkeypatch):
    """The numbers of threads that were set, in a program in which TensorFlow does not run yet."""
    numbers = []
    setter = "set_intra_op_parallelism_threads"
    monkeypatch.setattr(tf.config.threading, setter, numbers.append)
    return numbers


@pytest.mark.parametrize(
    ("model", "expected"),
    [("nais10", [1]), ("nais_mnist", [1]), ("resnet_w8", []), ("my_module:net", [])],
)
def test_nets_of_loops_get_one_thread_for_each_operation(given, model, expected):
    run_parts_in_parallel(model)
    assert given == expected


def test_a_gpu_leaves_the_threads(given, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    run_parts_in_parallel("nais10")
    assert given == []


def test_a_program_in_which_tensorflow_runs_keeps_its_threads():
    tf.constant(1.0) + 1.0
    before = tf.config.threading.get_intra_op_parallelism_threads()
    with pytest.raises(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(before + 1)
    run_parts_in_parallel("nais10")
    assert tf.config.threading.get_intra_op_parallelism_threads() == before
