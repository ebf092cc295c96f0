"""NAIS blocks written in NumPy, in float64, from the papers' formulas."""

import numpy as np
import scipy.linalg

import keras_iterconv as ki

# Neither square nor as large as the kernels of the tests: swapped axes and wrong padding show.
IMAGE = (5, 4)
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}
SLOPES = {"relu": lambda x: np.where(x > 0, 1.0, 0.0), "tanh": lambda x: 1 - np.tanh(x) ** 2}


def dense_conv_matrix(kernel, height, width):
    """Write a zero-padded convolution of stride 1 as the matrix on flat images that it is."""
    kh, kw, channels, filters = kernel.shape
    matrix = np.zeros((height, width, filters, height, width, channels))
    for i, j, a, b in np.ndindex(height, width, kh, kw):
        y, x = i + a - kh // 2, j + b - kw // 2
        if 0 <= y < height and 0 <= x < width:
            matrix[i, j, :, y, x, :] += kernel[a, b].T
    return matrix.reshape(height * width * filters, height * width * channels)


class NumpyDouble:
    """Update k of a NAIS block in float64, x + h sigma(A x + B u + b) on flat vectors.

    A and B are dense matrices, of the convolutions too; they come from the layer's weights and
    from the papers' formulas, not from the layer's code.
    """

    def __init__(self, layer, k=0, image=IMAGE):
        def value(weight):
            array = np.asarray(weight.numpy(), np.float64)
            return array if layer.tied else array[k]

        self.step_size = layer.step_size
        self.activation = layer.activation
        if isinstance(layer, ki.NAISDense):
            R = value(layer.R)
            self.A = -R.T @ R - layer.shift * np.eye(layer.units)
            self.b = value(layer.b)
            self.B = value(layer.B).T if layer.non_autonomous else None
            return
        C, middle = value(layer.C).copy(), layer.kernel_size // 2
        for c in range(layer.filters):
            delta = 0.0 if layer.delta is None else value(layer.delta)[c]
            C[middle, middle, c, c] = -1.0 - delta
        self.A = dense_conv_matrix(C, *image)
        self.B = dense_conv_matrix(value(layer.D), *image)
        self.b = np.tile(value(layer.E), image[0] * image[1])

    def preactivation(self, x, u):
        drive = 0.0 if self.B is None else flat(u) @ self.B.T
        return flat(x) @ self.A.T + drive + self.b

    def change(self, x, u):
        pre = self.preactivation(x, u)
        return self.step_size * ACTIVATIONS[self.activation](pre).reshape(np.shape(x))

    def slopes(self, x, u):
        return SLOPES[self.activation](self.preactivation(x, u))

    def jacobian(self, slopes):
        """Return d x(k+1) / d x(k) of one sample whose activations have these slopes."""
        return np.eye(len(self.A)) + self.step_size * slopes[:, None] * self.A


def flat(samples):
    return np.asarray(samples, np.float64).reshape(len(samples), -1)


def spectral_radius(matrix):
    """Return the largest absolute value of a matrix's eigenvalues."""
    return np.abs(scipy.linalg.eigvals(matrix)).max()
