"""Networks in PyTorch, channels last. Only candidates' processes import this module."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "PyTorch is missing, which this benchmark needs: pip install 'keras-iterconv[bench]'",
        name="torch",
    ) from error
from torch import nn


def build_net(described: Sequence[Mapping[str, Any]]) -> nn.Sequential:
    """Return the network that `described_nets.describe_net` describes, with equal weights.

    Returns:
        A module from `[N, channels, height, width]`, see `to_torch`, to logits. Blocks with a
        projection have a method `project` to call after each step.
    """
    modules: list[nn.Module] = []
    for module in described:
        modules += _modules(**module)
    return nn.Sequential(*modules).to(memory_format=torch.channels_last)


def _modules(kind: str, **given: Any) -> list[nn.Module]:
    if kind == "nais":
        return [NAISBlock(**given)]
    if kind == "residual":
        return [ResidualBlock(given["inner"])]
    if kind == "convolution":
        return _convolution(**given)
    if kind == "norm":
        return [_batch_norm(**given)]
    if kind == "relu":
        return [nn.ReLU()]
    if kind == "average":
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    dense = nn.Linear(*given["kernel"].shape)
    dense.weight.data, dense.bias.data = tensor(given["kernel"].T), tensor(given["bias"])
    return [dense]


class NAISBlock(nn.Module):
    """A tied `NAISConv2D` of fixed depth with trainable centres, which starts at its input."""

    def __init__(
        self,
        delta: np.ndarray,
        C: np.ndarray,
        D: np.ndarray,
        E: np.ndarray,
        is_center: np.ndarray,
        activation: str,
        updates: int,
        step_size: float,
        margin: float,
        center_margin: float,
    ):
        super().__init__()
        self.delta = nn.Parameter(tensor(delta))
        self.C = nn.Parameter(_kernel(C))
        self.D = nn.Parameter(_kernel(D))
        self.E = nn.Parameter(tensor(E))
        # [h, w, in, out] or, broadcast, [h, w, 1, 1], as a kernel.
        self.register_buffer("is_center", tensor(np.moveaxis(is_center, (3, 2), (0, 1))))
        self.activation = getattr(torch, activation)
        self.updates, self.step_size = updates, step_size
        self.margin, self.center_margin = margin, center_margin
        self.padding = C.shape[0] // 2

    def with_center(self, kernel: torch.Tensor) -> torch.Tensor:
        """Return the kernel with -1 - delta in the centres."""
        return torch.where(self.is_center, (-1 - self.delta)[:, None, None, None], kernel)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Return the state after all updates."""
        conv2d, kernel = nn.functional.conv2d, self.with_center(self.C)
        drive = conv2d(u, self.D, self.E, padding=self.padding)
        x = u
        for _ in range(self.updates):
            change = self.activation(conv2d(x, kernel, padding=self.padding) + drive)
            x = x + (change if self.step_size == 1 else self.step_size * change)
        return x

    @torch.no_grad()
    def project(self) -> None:
        """Project the weights as Algorithm 2 does."""
        self.delta.clamp_(self.center_margin - 1, 1 - self.center_margin)
        others = self.C.masked_fill(self.is_center, 0)
        budget = 1 - self.margin - self.delta.abs()
        factor = (budget / others.abs().sum((1, 2, 3))).clamp(max=1)
        self.C.copy_(self.with_center(others * factor[:, None, None, None]))


class ResidualBlock(nn.Module):
    """z + f(z), with f of batch norms, ReLUs and convolutions."""

    def __init__(self, inner: Sequence[Mapping[str, Any]]):
        super().__init__()
        self.f = nn.Sequential(*(module for part in inner for module in _modules(**part)))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the state after the block."""
        return z + self.f(z)


def _convolution(kernel: np.ndarray, stride: int) -> list[nn.Module]:
    """Return a 3x3 convolution with TensorFlow's kernel and, for stride 2, its padding."""
    weight = _kernel(kernel)
    padding = 1 if stride == 1 else 0
    layer = nn.Conv2d(*weight.shape[1::-1], 3, stride, padding=padding, bias=False)
    layer.weight.data = weight
    # TensorFlow pads even sizes at the bottom and the right only, odd sizes on both sides.
    return [layer] if stride == 1 else [_SamePadding(), layer]


class _SamePadding(nn.Module):
    """TensorFlow's zero padding for a 3x3 kernel of stride 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = (size % 2 for size in x.shape[-2:])
        return nn.functional.pad(x, (width, 1, height, 1))


def _batch_norm(epsilon: float, momentum: float, **weights: np.ndarray) -> nn.Module:
    layer = nn.BatchNorm2d(len(weights["gamma"]), eps=epsilon, momentum=1 - momentum)
    layer.weight.data, layer.bias.data = tensor(weights["gamma"]), tensor(weights["beta"])
    layer.running_mean, layer.running_var = tensor(weights["mean"]), tensor(weights["variance"])
    return layer


def tensor(value: np.ndarray) -> torch.Tensor:
    """Return a copy of an array."""
    return torch.from_numpy(np.array(value))


def _kernel(kernel: np.ndarray) -> torch.Tensor:
    """Return TensorFlow's kernel, `[h, w, in, out]`, in PyTorch's order of axes."""
    return tensor(kernel).permute(3, 2, 0, 1).contiguous()


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Return NHWC images as a channels-last tensor."""
    moved = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return moved.contiguous(memory_format=torch.channels_last)
