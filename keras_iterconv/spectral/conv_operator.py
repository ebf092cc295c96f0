"""A convolution as a linear operator, and the checks of its kernel and images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv._support.checks import check_positive_int


class ConvOperator(NamedTuple):
    """A convolution without bias as a linear operator from images to images.

    Attributes:
        kernel: `[kh, kw, channels, filters]`.
        image_shape: `(height, width, channels)` of the images that it is applied to.
        strides: `(vertical, horizontal)`.
        padding: `"same"` (with zeros) or `"valid"`.

    Example:
        >>> operator = ki.spectral.ConvOperator(tf.ones([1, 1, 1, 1]) * 3, (4, 4, 1))
        >>> operator.apply(tf.ones([1, 4, 4, 1])).numpy().ravel()[:2].tolist()
        [3.0, 3.0]

    See also:
        `spectral.conv_operator_norm`; `spectral.power_step`.
    """

    kernel: tf.Tensor
    image_shape: tuple[int, int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str = "same"

    def apply(self, images: tf.Tensor) -> tf.Tensor:
        """Map `[N, height, width, channels]` to `[N, out height, out width, filters]`.

        Args:
            images: `[N, height, width, channels]`, of the dtype of the kernel.

        Returns:
            `[N, out height, out width, filters]`.

        See also:
            `spectral.ConvOperator.adjoint`.
        """
        return tf.nn.conv2d(images, self.kernel, self.strides, self.padding.upper())

    def adjoint(self, images: tf.Tensor) -> tf.Tensor:
        """Map `[N, out height, out width, filters]` to `[N, height, width, channels]`.

        Args:
            images: `[N, out height, out width, filters]`, of the dtype of the kernel.

        Returns:
            `[N, height, width, channels]`.

        Example:
            >>> kernel = tf.ones([3, 3, 1, 1])
            >>> operator = ki.spectral.ConvOperator(kernel, (4, 4, 1), padding="valid")
            >>> x, y = np.random.default_rng(0).normal(size=(2, 1, 4, 4, 1)).astype("float32")
            >>> y = y[:, :2, :2]  # an image of the output
            >>> forward, back = operator.apply(x) * y, x * operator.adjoint(y)
            >>> bool(np.isclose(np.sum(forward), np.sum(back), atol=1e-4))  # (A x)'y = x'(A'y)
            True

        See also:
            `spectral.ConvOperator.apply`.
        """
        return tf.nn.conv2d_transpose(
            images,
            self.kernel,
            (images.shape[0], *self.image_shape),
            self.strides,
            self.padding.upper(),
        )


def float_kernel(kernel: Any) -> tf.Tensor:
    """Return a kernel as a tensor, float32 or, where it is float64, float64.

    Args:
        kernel: A tensor, array or variable, `[kh, kw, channels, filters]`.

    Raises:
        ValueError: It has another rank.
    """
    kernel = tf.convert_to_tensor(kernel)
    if kernel.dtype != tf.float64:
        kernel = tf.cast(kernel, tf.float32)
    if kernel.shape.rank != 4:
        raise ValueError(
            "`kernel` must have the shape [kh, kw, channels, filters]. "
            f"Received: kernel of shape {tuple(kernel.shape)}"
        )
    return kernel


def check_image(image_shape: Sequence[int], kernel: Any) -> tuple[int, int, int]:
    """Return `(height, width, channels)` of the images that a kernel is applied to.

    Args:
        image_shape: `(height, width)` or `(height, width, channels)`.
        kernel: The kernel, `[kh, kw, channels, filters]`.

    Raises:
        ValueError: The shape is neither, or its channels are not those of the kernel.
    """
    channels = kernel.shape[2]
    sizes = tuple(image_shape) if isinstance(image_shape, Sequence) else (image_shape,)
    if len(sizes) not in (2, 3) or (len(sizes) == 3 and sizes[2] != channels):
        raise ValueError(
            f"`image_shape` must be (height, width) or (height, width, {channels}), with the "
            f"kernel's channels. Received: image_shape={image_shape!r}"
        )
    height, width = (check_positive_int("image_shape", size) for size in sizes[:2])
    return height, width, channels
