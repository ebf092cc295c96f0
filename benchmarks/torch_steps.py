"""Training steps in PyTorch, a candidate of benchmarks. It has no TensorFlow in its process."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.process_settings import count_cores, current_device
from benchmarks.random_batches import LEARNING_RATE, MOMENTUM
from benchmarks.torch_nets import build_net, to_torch, torch


class TorchSteps:
    """Trains a network in eager mode, with its projections.

    Args:
        described: The network, of `described_nets.describe_net`.
        images: A batch, `[N, height, width, 3]`.
        labels: Its labels, `[N]`.
        steps: Number of steps in a run, all on this batch.
        bfloat16: Whether the forward pass runs under PyTorch's autocast.
    """

    def __init__(
        self,
        described: Sequence[Mapping[str, Any]],
        images: np.ndarray,
        labels: np.ndarray,
        steps: int = 1,
        bfloat16: bool = False,
    ):
        torch.set_num_threads(count_cores())
        if current_device() == "gpu" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU; install a build of it for CUDA")
        self.device = torch.device("cuda" if current_device() == "gpu" else "cpu")
        self.net = build_net(described).to(self.device)
        self.images = to_torch(images).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.steps, self.bfloat16 = steps, bfloat16
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.loss = torch.nn.CrossEntropyLoss()
        self.projected = [module for module in self.net.modules() if hasattr(module, "project")]

    def run(self) -> None:
        """Train the steps."""
        self.net.train()
        for _ in range(self.steps):
            self.optimizer.zero_grad()
            with self._precision():
                loss = self.loss(self.net(self.images), self.labels)
            loss.backward()
            self.optimizer.step()
            for module in self.projected:
                module.project()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of NHWC images in inference."""
        self.net.eval()
        with torch.no_grad(), self._precision():
            return self.net(to_torch(images).to(self.device)).float().cpu().numpy()

    def parameters(self) -> list[np.ndarray]:
        """Return the trained weights, in TensorFlow's order of axes."""
        arrays = (value.detach().cpu().numpy() for value in self.net.parameters())
        return [array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T for array in arrays]

    def _precision(self) -> contextlib.AbstractContextManager:
        if not self.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
