"""The option `--device gpu`, without a GPU: refused, and what its processes are given."""

import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from benchmarks import onnx_candidate, steps
from benchmarks.harness import control, gpu_control
from benchmarks.harness.bench import CONTROLS, Bench
from benchmarks.harness.candidate import Candidate
from benchmarks.harness.devices import check_device, gpu_names, wait_for_device
from benchmarks.harness.process_settings import DEVICE, environment
from benchmarks.harness.worker import Worker
from iterconv.command_errors import UserError

no_gpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow sees a GPU"
)


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setenv(DEVICE, "gpu")


@no_gpu
def test_a_benchmark_on_a_gpu_that_is_not_there_ends_with_one_line():
    command = [sys.executable, "-m", "benchmarks", "--device", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: --device gpu needs a GPU that TensorFlow sees, and it sees none")
    assert not done.stdout


def test_a_gpu_that_tensorflow_sees_is_accepted(monkeypatch):
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    assert check_device("gpu") == "gpu"
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert check_device("cpu") == "cpu"
    with pytest.raises(UserError, match="nvidia-smi"):
        check_device("gpu")


@pytest.mark.parametrize(("visible", "first"), [(None, "0"), ("2,3", "2")])
def test_candidates_share_the_memory_of_one_gpu_and_round_alike(visible, first, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    variables = environment("gpu", "")
    assert variables["CUDA_VISIBLE_DEVICES"] == first
    assert variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert variables["NVIDIA_TF32_OVERRIDE"] == "0"
    assert variables[DEVICE] == "gpu"
    assert environment("cpu", "")["CUDA_VISIBLE_DEVICES"] == "-1"


def test_the_clock_of_a_turn_stops_when_the_gpu_has_done_its_work(on_gpu, monkeypatch):
    calls = []
    fake = SimpleNamespace(synchronize=lambda: calls.append("wait"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=fake))
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: calls.append("wait"))
    worker = Worker()
    worker.candidate = SimpleNamespace(run=lambda: calls.append("run"))
    worker.warm_up({})
    assert calls == ["run", "wait", "wait"]
    calls.clear()
    worker.take_turn({})
    # One wait for each framework that is loaded, after each run.
    assert calls[:6] == ["run", "wait", "wait"] * 2
    monkeypatch.setenv(DEVICE, "cpu")
    calls.clear()
    wait_for_device()
    assert not calls


def test_fit_is_timed_to_the_end_of_the_last_step(on_gpu, monkeypatch):
    waits = []

    def wait():
        waits.append(int(clock.model.optimizer.iterations))

    monkeypatch.setattr(steps, "wait_for_device", wait)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    clock = steps.StepClock()
    model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=2, verbose=0, callbacks=[clock])
    assert waits == [3]
    assert clock.seconds > 0


def test_the_control_is_a_matrix_product_of_the_device(on_gpu, monkeypatch):
    monkeypatch.setattr(gpu_control, "SIZE", 64)
    monkeypatch.setattr(control, "SECONDS", 0.01)
    assert gpu_control.GPUMatrixProduct().rate() > 0
    with Bench("gpu") as bench:
        assert bench.control == CONTROLS["gpu"]
        target = bench.control.target
    assert target == f"{gpu_control.__name__}:{gpu_control.GPUMatrixProduct.__name__}"


def test_names_of_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu_names.cache_clear()
    assert gpu_names() == []
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nprint('NVIDIA H100, 550.1')\n")
    program.chmod(0o755)
    gpu_names.cache_clear()
    assert gpu_names() == ["NVIDIA H100, 550.1"]
    gpu_names.cache_clear()


def test_onnx_runtime_runs_on_the_gpu_or_says_what_is_missing(on_gpu, monkeypatch):
    available = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    with pytest.raises(RuntimeError, match="onnxruntime-gpu"):
        onnx_candidate.provider()
    available.append("CUDAExecutionProvider")
    assert onnx_candidate.provider() == "CUDAExecutionProvider"
    monkeypatch.setenv(DEVICE, "cpu")
    assert onnx_candidate.provider() == "CPUExecutionProvider"


@no_gpu
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("benchmarks.litert_candidate:LiteRTSession", "LiteRT runs these files on the CPU only"),
        pytest.param(
            "benchmarks.torch_steps:TorchSteps", "PyTorch sees no GPU", marks=pytest.mark.pytorch
        ),
    ],
)
def test_candidates_without_a_gpu_say_so(target, message):
    arguments = {"file": b"", "inputs": None, "threads": 1}
    if "torch" in target:
        arguments = {"described": [], "images": np.ones((1, 2, 2, 3)), "labels": np.zeros(1)}
    with Bench("gpu") as bench, pytest.raises(UserError, match=message):
        bench.ask(Candidate(target, arguments), "run")
