"""Convolutions as dense matrices of any stride and padding."""

import numpy as np


def dense_operator(kernel, image, strides=(1, 1), padding="same", circular=False):
    """Write a convolution as the matrix on flat images that it is, one tap after the other."""
    kh, kw, channels, filters = kernel.shape
    out, before = [], []
    for size, side, stride in zip(image, (kh, kw), strides, strict=True):
        if padding == "valid":
            out.append((size - side) // stride + 1)
            before.append(0)
        else:
            out.append(-(-size // stride))
            before.append(max((out[-1] - 1) * stride + side - size, 0) // 2)
    matrix = np.zeros((*out, filters, *image, channels))
    for i, j, a, b in np.ndindex(*out, kh, kw):
        y, x = i * strides[0] + a - before[0], j * strides[1] + b - before[1]
        if circular:
            y, x = y % image[0], x % image[1]
        if 0 <= y < image[0] and 0 <= x < image[1]:
            matrix[i, j, :, y, x, :] += kernel[a, b].T
    return matrix.reshape(np.prod(out) * filters, -1)


def draw(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)
