"""A model rebuilt in PyTorch, channels last. Only this module and its callers import torch."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "PyTorch is missing, which this benchmark needs: pip install 'keras-iterconv[bench]'",
        name="torch",
    ) from error
from torch import nn


def rebuild(model: keras.Model, make_blocks: Callable) -> nn.Sequential:
    """Return a chain of layers rebuilt in PyTorch, with equal weights.

    Args:
        model: A chain of layers.
        make_blocks: A function from a layer to equal modules, or None if it is not a block.

    Returns:
        A module from `[N, channels, height, width]`, see `to_torch`, to logits.
    """
    modules: list[Any] = []
    for layer in model.layers[1:]:
        modules += make_blocks(layer) or _plain(layer)
    return nn.Sequential(*modules).to(memory_format=torch.channels_last)


def _plain(layer: keras.layers.Layer) -> list[nn.Module]:
    if isinstance(layer, keras.layers.Conv2D):
        return convolution(layer.kernel, layer.strides[0])
    if isinstance(layer, keras.layers.BatchNormalization):
        return [batch_norm(layer.get_weights(), layer.epsilon, layer.momentum)]
    if isinstance(layer, keras.layers.Activation):
        return [nn.ReLU()]
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if isinstance(layer, keras.layers.Dense):
        kernel, bias = layer.get_weights()
        dense = nn.Linear(*kernel.shape)
        dense.weight.data, dense.bias.data = tensor(kernel.T), tensor(bias)
        return [dense]
    raise ValueError(f"{layer.name!r} has no equivalent in PyTorch")


def convolution(kernel: keras.Variable, stride: int = 1) -> list[nn.Module]:
    """Return a 3x3 convolution with TensorFlow's kernel and, for stride 2, its padding."""
    weight = torch_kernel(kernel)
    layer = nn.Conv2d(
        weight.shape[1], weight.shape[0], 3, stride, padding=1 if stride == 1 else 0, bias=False
    )
    layer.weight.data = weight
    # TensorFlow pads even sizes at the bottom and the right only, odd sizes on both sides.
    return [layer] if stride == 1 else [_SamePadding(), layer]


class _SamePadding(nn.Module):
    """TensorFlow's zero padding for a 3x3 kernel of stride 2."""

    def forward(self, x):
        height, width = (size % 2 for size in x.shape[-2:])
        return nn.functional.pad(x, (width, 1, height, 1))


def batch_norm(weights: Sequence[keras.Variable], epsilon: float, momentum: float) -> nn.Module:
    """Return the batch normalisation with these weights: gamma, beta, mean and variance."""
    gamma, beta, mean, variance = (tensor(weight) for weight in weights)
    layer = nn.BatchNorm2d(len(gamma), eps=epsilon, momentum=1 - momentum)
    layer.weight.data, layer.bias.data = gamma, beta
    layer.running_mean, layer.running_var = mean, variance
    return layer


def tensor(value: Any) -> torch.Tensor:
    """Return a copy of a Keras variable or an array."""
    return torch.from_numpy(np.array(keras.ops.convert_to_numpy(value)))


def torch_kernel(kernel: Any) -> torch.Tensor:
    """Return TensorFlow's kernel, `[h, w, in, out]`, in PyTorch's order of axes."""
    return tensor(kernel).permute(3, 2, 0, 1).contiguous()


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Return NHWC images as a channels-last tensor."""
    moved = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return moved.contiguous(memory_format=torch.channels_last)


def evaluate(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the logits of NHWC images in inference."""
    net.eval()
    with torch.no_grad():
        return net(to_torch(images)).numpy()
