"""A session of ONNX Runtime, a candidate of benchmarks. It has no TensorFlow in its process."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.harness.process_settings import current_device


class OnnxSession:
    """Runs an exported model.

    Args:
        file: Content of the ONNX file.
        inputs: Samples, `[N, ...]`.
        threads: Number of threads.
    """

    def __init__(self, file: bytes, inputs: np.ndarray, threads: int):
        options = onnxruntime.SessionOptions()
        # That optional inputs are no constants is expected.
        options.log_severity_level = 4
        # Threads that spin lose much to other programs, and gain little without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(file, options, providers=[provider()])
        self.image = self.session.get_inputs()[0].name
        self.outputs = [each.name for each in self.session.get_outputs()]
        self.inputs = inputs

    def run(self, size: int, **depth: Any) -> None:
        """Run all samples in batches of `size`, at the depth of the given inputs."""
        self._run(size, depth, self.outputs)

    def depth(self, size: int, **depth: Any) -> np.ndarray:
        """Return the depth of each sample in each block, `[N, blocks]`."""
        return np.concatenate([found for (found,) in self._run(size, depth, ["depth"])])

    def _run(self, size: int, depth: Mapping[str, Any], outputs: list[str]) -> list[Any]:
        return [
            self.session.run(outputs, {self.image: self.inputs[begin : begin + size], **depth})
            for begin in range(0, len(self.inputs), size)
        ]


def provider() -> str:
    """Return the name by which ONNX Runtime knows the device of the benchmark."""
    if current_device() != "gpu":
        return "CPUExecutionProvider"
    name = "CUDAExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        raise RuntimeError(f"ONNX Runtime has no {name}; install `onnxruntime-gpu` in its place")
    return name
