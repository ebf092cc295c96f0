"""The convolutional NAIS-Net block."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_iterconv._support.checks import (
    check_channels_last,
    check_choice,
    check_margins,
    check_positive_int,
)
from keras_iterconv._support.empty_batches import on_any_batch
from keras_iterconv.layers.iterated_block import IteratedBlock
from keras_iterconv.layers.protocol import ImageSize
from keras_iterconv.layers.rules.conv_rule import conv_block_gain, conv_row
from keras_iterconv.layers.rules.rows import BlockRow
from keras_iterconv.projections import ConvProjection, DeltaProjection, write_center
from keras_iterconv.unrolling import BoundUpdate

CENTERS = ("trainable", "fixed")

# The initial variance of D is this number over the fan-in. In NAIS-Net's chain of 54 blocks, each
# block then adds 1 / 54 of the variance of its input, and the whole chain multiplies the variance
# by about e. With the usual 1 the states grow exponentially along the chain, and it hardly trains.
INPUT_KERNEL_SCALE = 1 / 54


def _input_kernel_initializer():
    return keras.initializers.VarianceScaling(INPUT_KERNEL_SCALE)


@keras.saving.register_keras_serializable("keras_iterconv")
class NAISConv2D(IteratedBlock):
    """A stable convolutional block, X(k+1) = X(k) + h sigma(C * X(k) + D * U + E).

    Algorithm 2 projects C at initialization and after each optimizer step. The infinity norm of
    the update's Jacobian is then below one if all slopes of the activation are positive, and at
    most one for ReLU. The norm is the same for all updates, so that a chain of untied updates is
    non-expansive too. This does not imply that the states of an untied block converge, since
    untied updates need not share a fixed point. Both convolutions are zero-padded and of stride 1.

    Args:
        filters: The number of channels of the state.
        kernel_size: The side of both kernels, odd.
        max_unroll: The number of updates, or the largest number if a threshold is given.
        threshold: None for exactly `max_unroll` updates; else the stopping threshold: each sample
            stops after the first update whose 2-norm, over all pixels and channels, is below it.
        step_size: h, in (0, 1].
        activation: sigma, `"relu"` or `"tanh"`.
        margin: epsilon of Algorithm 2, 0 < margin < center_margin < 1: where all slopes are one,
            the Jacobian's norm is at most 1 - h * margin.
        center_margin: eta of Algorithm 2: |delta| is at most 1 - center_margin.
        center: `"trainable"`: the centre tap from each channel to itself is -1 - delta, and delta
            is a trained weight; `"fixed"`: delta = 0.
        initial_state: X(0): `"input"`, where U has `filters` channels, or `"zeros"` (Eq. 2).
        gradient: The gradient mode, `"unroll"` or `"recompute"` (exact), `"implicit"` or
            `"frozen"`; see `IteratedBlock`.
        tied: Whether all updates share C, D, E and delta.
        solver: `"picard"` or, for tied tanh blocks with a threshold, `"anderson"`, which finds the
            fixed point in fewer evaluations, outside training.
        settling: The weight of a loss, in training, by which the states learn to settle: the mean
            of the squared 2-norm of the last update, relative to that of the last state.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: U, `[N, height, width, channels]`, any float dtype.
        training: Whether a backward pass will follow.
        return_depth: Return an `Unrolled` of state, depth and status.

    Returns:
        The last state, `[N, height, width, filters]` in the layer's compute dtype; with
        `return_depth` also depth and status, int32 `[N]` each.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit.

    Example:
        >>> block = ki.NAISConv2D(4, max_unroll=100, threshold=1e-3, activation="tanh")
        >>> images = np.ones((3, 8, 8, 4)) * np.reshape([0.0, 0.1, 1.0], (3, 1, 1, 1))
        >>> state, depth, status = block(images, return_depth=True)
        >>> state.shape
        TensorShape([3, 8, 8, 4])
        >>> depth.numpy().tolist()  # each sample stops by itself
        [1, 5, 7]

    Reference:
        Ciccone et al. 2018, Eq. 4, Algorithm 2, Theorems 1 and 3.

    See also:
        `NAISDense`, for vectors; `Iterate`, for an update of your own; `projections.project_conv`,
        which is Algorithm 2; `certify`; `set_depth`.
    """

    bound_norm = "infinity"
    channels_first = True
    linear = True

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        max_unroll: int = 10,
        threshold: float | None = None,
        step_size: float = 1.0,
        activation: str = "relu",
        margin: float = 0.01,
        center_margin: float = 0.05,
        center: str = "trainable",
        initial_state: str = "input",
        gradient: str = "unroll",
        tied: bool = True,
        solver: str = "picard",
        settling: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(
            max_unroll,
            threshold,
            step_size,
            activation,
            initial_state,
            gradient,
            tied,
            solver,
            settling,
            **kwargs,
        )
        check_channels_last()
        self.filters = check_positive_int("filters", filters)
        self.kernel_size = check_positive_int("kernel_size", kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that the kernel has a centre. "
                f"Received: kernel_size={kernel_size}"
            )
        self.margin, self.center_margin = check_margins(margin, center_margin)
        self.center = check_choice("center", center, CENTERS)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    @property
    def state_channels(self) -> int:
        return self.filters

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.check_inputs(input_shape)
        window = (self.kernel_size, self.kernel_size)
        self.delta = None
        if self.center == "trainable":
            self.delta = self.add_update_weight(
                "delta",
                (self.filters,),
                keras.initializers.Zeros,
                DeltaProjection(self.center_margin),
            )
        self.C = self.add_update_weight(
            "C",
            (*window, self.filters, self.filters),
            keras.initializers.GlorotUniform,
            ConvProjection(self.margin, self.center_margin, self.delta),
        )
        self.D = self.add_update_weight(
            "D", (*window, input_shape[-1], self.filters), _input_kernel_initializer
        )
        self.E = self.add_update_weight("E", (self.filters,), keras.initializers.Zeros)
        self.built = True

    def state_kernel(self) -> tf.Tensor:
        """Return C with -1 - delta at its centres, `[k, k, filters, filters]`.

        An untied block returns `[max_unroll, k, k, filters, filters]`. Writing the centres from
        delta gives delta its gradient; after each projection they equal those of the variable C.

        Example:
            >>> block = ki.NAISConv2D(2, center="fixed")
            >>> block.build((None, 8, 8, 2))
            >>> kernel = block.state_kernel()
            >>> kernel.shape
            TensorShape([3, 3, 2, 2])
            >>> kernel[1, 1].numpy().diagonal().tolist()  # -1 - delta, with delta = 0
            [-1.0, -1.0]

        See also:
            `projections.write_center`; `NAISDense.state_matrix`.
        """
        C = tf.convert_to_tensor(self.C)
        if self.delta is None:
            return write_center(C, tf.zeros([*C.shape[:-4], self.filters], C.dtype))
        return write_center(C, tf.convert_to_tensor(self.delta))

    def build_update(self, inputs: tf.Tensor, data_format: str = "NHWC") -> BoundUpdate:
        """Return the update for U.

        Args:
            inputs: U, in the compute dtype.
            data_format: The layout of U and of the state: `"NHWC"`, or `"NCHW"` for exporters.
        """
        convolution = _convolution(data_format)
        C, D, E = self.state_kernel(), tf.convert_to_tensor(self.D), tf.convert_to_tensor(self.E)
        if self.tied:
            update = self.euler_update(convolution.tied, convolution.make_drives)
            return update.bind((C,), drive_inputs=(inputs, D, E))
        return self.euler_update(convolution.untied).bind((C, D, E), (inputs,))

    def certificate_rows(self, image: ImageSize) -> list[BlockRow]:
        return [conv_row(self)]

    def lipschitz_gain(
        self,
        gains: Sequence[float],
        norm: str,
        rows: Sequence[BlockRow],
        options: Mapping[str, Any],
    ) -> float:
        return gains[0] * conv_block_gain(self)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "margin": self.margin,
            "center_margin": self.center_margin,
            "center": self.center,
        }


class _Convolution(NamedTuple):
    """Functions for an `EulerUpdate` in one data format.

    Attributes:
        tied: The `transfer` of tied updates.
        untied: The `transfer` of untied updates.
        make_drives: The `make_drives` of tied updates.
    """

    tied: Callable
    untied: Callable
    make_drives: Callable


# Cached, so that all blocks have the same functions: `call_traced_once` then traces one graph.
@functools.cache
def _convolution(data_format: str) -> _Convolution:
    def convolve(images, kernel):
        kernel = tf.cast(kernel, images.dtype)
        return tf.nn.conv2d(images, kernel, 1, "SAME", data_format=data_format)

    # In mixed precision only the convolutions are in the compute dtype.
    def drive(inputs, D, E):
        def add(inputs):
            product = tf.cast(convolve(inputs, D), E.dtype)
            return tf.nn.bias_add(product, E, data_format=data_format)

        if data_format == "NCHW":
            return (add(inputs),)
        shape = (*inputs.shape[:-1], E.shape[0])
        return (on_any_batch(add, inputs, shape, E.dtype),)

    def tied(state, k, weights, drives):
        (drive,) = drives
        # Not `+`: for an unknown batch size its gradient includes reductions for broadcasting,
        # which cost two passes over the state.
        return tf.add_n([tf.cast(convolve(state, *weights), drive.dtype), drive])

    def untied(state, k, weights, drives):
        C, D, E = (weight[k] for weight in weights)
        (inputs,) = drives
        return tied(state, k, (C,), drive(inputs, D, E))

    return _Convolution(tied, untied, drive)
