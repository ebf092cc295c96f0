"""An interpreter of LiteRT, a candidate of benchmarks. It has no TensorFlow in its process."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.harness.process_settings import current_device


class LiteRTSession:
    """Runs an exported model.

    Args:
        file: Content of the LiteRT file.
        inputs: Samples, `[N, ...]`.
        threads: Number of threads.
    """

    def __init__(self, file: bytes, inputs: np.ndarray, threads: int):
        if current_device() == "gpu":
            raise RuntimeError("LiteRT runs these files on the CPU only; use --device cpu")
        # The runner does not keep its interpreter alive.
        self.interpreter = Interpreter(model_content=file, num_threads=threads)
        self.runner = self.interpreter.get_signature_runner("serving_default")
        (self.image,) = self.runner.get_input_details()
        self.inputs = inputs

    def run(self, size: int) -> None:
        """Run all samples in batches of `size`."""
        self.depth(size)

    def depth(self, size: int) -> np.ndarray:
        """Return the depth of each sample in each block, `[N, blocks]`."""
        batches = (self.inputs[n : n + size] for n in range(0, len(self.inputs), size))
        return np.concatenate([self.runner(**{self.image: batch})["depth"] for batch in batches])
