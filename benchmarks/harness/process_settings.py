"""What all processes of a benchmark have in common: threads, denormals, devices."""

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Mapping

# PyTorch and LiteRT read the first, NumPy the next two, TensorFlow the last two.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
DEVICE = "ITERCONV_BENCHMARK_DEVICE"
DEVICES = ("cpu", "gpu")

# By machine: where `fenv_t` of glibc holds the control word, and its bits that flush denormals.
_CONTROL = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}
_DIE_WITH_PARENT = 1


def count_cores() -> int:
    """Return the number of cores that this process, and each one that it starts, may use."""
    return len(os.sched_getaffinity(0))


def environment(device: str, path: str) -> dict[str, str]:
    """Return the environment of a candidate's process.

    Args:
        device: One of `DEVICES`. On "cpu" no framework sees a GPU, on "gpu" the first that this
            process may use.
        path: The folder from which `benchmarks` is imported.
    """
    settings = dict.fromkeys(THREADS, str(count_cores()))
    if device == "cpu":
        settings["CUDA_VISIBLE_DEVICES"] = "-1"
    else:
        settings |= {
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
            # TensorFlow would take all memory of the GPU, and the candidates share it.
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            # TensorFlow rounds the factors of float32 products to TensorFloat-32, PyTorch only
            # those of convolutions. Here none does.
            "NVIDIA_TF32_OVERRIDE": "0",
        }
    known = os.environ.get("PYTHONPATH")
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        **settings,
        DEVICE: device,
        "PYTHONPATH": os.pathsep.join([path, *([known] if known else [])]),
    }


def current_device() -> str:
    """Return the device of the benchmark, in the process of a candidate."""
    return os.environ.get(DEVICE, "cpu")


def settle() -> None:
    """Prepare the process of a candidate, before it imports anything that computes.

    Denormal numbers cost a processor up to a hundred times more than others. TensorFlow flushes
    them to zero, and NumPy, PyTorch, ONNX Runtime and LiteRT do not; here all do. Threads inherit
    the setting from the thread that starts them.
    """
    # Ctrl-C is for the benchmark, which ends the candidates.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    flush_denormals()


def flush_denormals(machines: Mapping[str, tuple[int, int]] = _CONTROL) -> bool:
    """Flush denormal results and operands to zero in this thread and those it starts.

    Returns:
        Whether this processor and its C library are known.
    """
    offset, bits = machines.get(platform.machine(), (None, 0))
    library = ctypes.CDLL(None)
    if offset is None or not hasattr(library, "fesetenv"):
        return False
    state = (ctypes.c_uint8 * 256)()
    library.fegetenv(state)
    word = ctypes.c_uint32.from_buffer(state, offset)
    word.value |= bits
    library.fesetenv(state)
    return True
