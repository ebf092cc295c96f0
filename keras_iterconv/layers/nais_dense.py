"""The fully connected NAIS-Net block."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_positive_int, check_shift
from keras_iterconv.layers.iterated_block import IteratedBlock
from keras_iterconv.layers.protocol import ImageSize
from keras_iterconv.layers.rules.dense_rule import dense_block_gain, dense_row
from keras_iterconv.layers.rules.rows import BlockRow
from keras_iterconv.projections import DenseProjection
from keras_iterconv.unrolling import BoundUpdate


@keras.saving.register_keras_serializable("keras_iterconv")
class NAISDense(IteratedBlock):
    """A stable fully connected block, x(k+1) = x(k) + h sigma(A x(k) + B u + b).

    A = -R'R - shift I is symmetric and negative definite. Algorithm 1 keeps ||R'R||_F at most
    `bound`, at initialization and after each optimizer step. So every update is stable: the
    eigenvalues of its Jacobian lie inside the unit circle where all slopes of the activation are
    positive. This holds for each update of an untied block too, but does not imply that the states
    of an untied block converge.

    Args:
        units: n, the size of the state.
        max_unroll: K, the number of updates, or the largest number if a threshold is given.
        threshold: None for exactly `max_unroll` updates; else the stopping threshold: each sample
            stops after the first update whose 2-norm is below it.
        step_size: h, in (0, 1].
        activation: sigma, `"relu"` or `"tanh"`.
        shift: epsilon of Eq. 13, in (0, 0.5).
        rank: The number of rows of R; `units` where None.
        bound: delta of Algorithm 1, in (0, 2 (1 - shift)]; `1 - 2 * shift` where None. Up to this
            default the state does not oscillate; up to the largest value the updates are stable
            (Theorem 2).
        initial_state: x(0): `"zeros"` (Eq. 2) or `"input"`, where u has `units` channels.
        gradient: The gradient mode, `"unroll"` or `"recompute"` (exact), `"implicit"` or
            `"frozen"`; see `IteratedBlock`.
        tied: Whether all updates share R, B and b.
        non_autonomous: Whether u enters each update. False omits B, so that the input only sets
            x(0) (RESNET-SH-STABLE of Ciccone et al.); it requires `initial_state="input"`.
        solver: `"picard"` or, for tied tanh blocks with a threshold, `"anderson"`, which finds the
            fixed point in fewer evaluations, outside training.
        settling: The weight of a loss, in training, by which the states learn to settle: the mean
            of the squared 2-norm of the last update, relative to that of the last state.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: u, `[N, channels]`, any float dtype.
        training: Whether a backward pass will follow.
        return_depth: Return an `Unrolled` of state, depth and status.

    Returns:
        The last state, `[N, units]` in the layer's compute dtype; with `return_depth` also depth
        and status, int32 `[N]` each.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=100, threshold=1e-2, step_size=0.5)
        >>> inputs = np.ones((3, 4)) * [[0.0], [0.1], [1.0]]
        >>> state, depth, status = block(inputs, return_depth=True)
        >>> state.shape
        TensorShape([3, 8])
        >>> depth.numpy().tolist()  # each sample stops by itself
        [1, 5, 16]

    Reference:
        Ciccone et al. 2018, Eq. 3, Eq. 13, Algorithm 1, Theorems 1 and 2.

    See also:
        `NAISConv2D`, for images; `Iterate`, for an update of your own; `projections.project_dense`,
        which is Algorithm 1; `certify`; `set_depth`.
    """

    linear = True

    def __init__(
        self,
        units: int,
        max_unroll: int = 30,
        threshold: float | None = None,
        step_size: float = 0.1,
        activation: str = "relu",
        shift: float = 0.01,
        rank: int | None = None,
        bound: float | None = None,
        initial_state: str = "zeros",
        gradient: str = "unroll",
        tied: bool = True,
        non_autonomous: bool = True,
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
        self.units = check_positive_int("units", units)
        self.shift, self.bound = check_shift(shift, bound)
        if rank is not None:
            rank = check_positive_int("rank", rank)
            if rank > self.units:
                raise ValueError(
                    f"`rank` must be at most `units`. Received: rank={rank}, units={units}"
                )
        self.rank = rank
        self.non_autonomous = bool(non_autonomous)
        if not self.non_autonomous and self.initial_state != "input":
            raise ValueError(
                '`non_autonomous=False` needs `initial_state="input"`: otherwise the state would '
                f"not depend on the input. Received: initial_state={initial_state!r}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=2)

    @property
    def state_channels(self) -> int:
        return self.units

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.check_inputs(input_shape)
        self.R = self.add_update_weight(
            "R",
            (self.rank or self.units, self.units),
            keras.initializers.GlorotUniform,
            DenseProjection(self.shift, self.bound),
        )
        if self.non_autonomous:
            self.B = self.add_update_weight(
                "B", (input_shape[-1], self.units), keras.initializers.GlorotUniform
            )
        self.b = self.add_update_weight("b", (self.units,), keras.initializers.Zeros)
        self.built = True

    def state_matrix(self) -> tf.Tensor:
        """Return A = -R'R - shift I, `[units, units]`, or `[max_unroll, units, units]` untied.

        Example:
            >>> block = ki.NAISDense(3)
            >>> block.build((None, 2))
            >>> bool(np.all(np.linalg.eigvalsh(block.state_matrix()) < 0))
            True

        See also:
            `projections.project_dense`; `NAISConv2D.state_kernel`.
        """
        R = tf.convert_to_tensor(self.R)
        return -tf.matmul(R, R, transpose_a=True) - self.shift * tf.eye(self.units, dtype=R.dtype)

    def build_update(self, inputs: tf.Tensor) -> BoundUpdate:
        A, b = self.state_matrix(), tf.convert_to_tensor(self.b)
        if not self.non_autonomous:
            transfer = _transfer_alone if self.tied else _transfer_alone_untied
            return self.euler_update(transfer).bind((A, b))
        B = tf.convert_to_tensor(self.B)
        if self.tied:
            return self.euler_update(_transfer, _drive).bind((A,), drive_inputs=(inputs, B, b))
        return self.euler_update(_transfer_untied).bind((A, B, b), (inputs,))

    def certificate_rows(self, image: ImageSize) -> list[BlockRow]:
        return [dense_row(self)]

    def lipschitz_gain(
        self,
        gains: Sequence[float],
        norm: str,
        rows: Sequence[BlockRow],
        options: Mapping[str, Any],
    ) -> float:
        return gains[0] * dense_block_gain(self, norm)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "shift": self.shift,
            "rank": self.rank,
            "bound": self.bound,
            "non_autonomous": self.non_autonomous,
        }


def _transfer(state, k, weights, drives):
    (drive,) = drives
    # Not `+`: for an unknown batch size its gradient includes reductions for broadcasting.
    return tf.add_n([tf.cast(_multiply(state, *weights), drive.dtype), drive])


def _transfer_untied(state, k, weights, drives):
    A, B, b = (weight[k] for weight in weights)
    (inputs,) = drives
    return _transfer(state, k, (A,), _drive(inputs, B, b))


def _transfer_alone(state, k, weights, drives):
    A, b = weights
    return tf.nn.bias_add(tf.cast(_multiply(state, A), b.dtype), b)


def _transfer_alone_untied(state, k, weights, drives):
    return _transfer_alone(state, k, [weight[k] for weight in weights], drives)


def _drive(inputs, B, b):
    return (tf.nn.bias_add(tf.cast(_multiply(inputs, B), b.dtype), b),)


# In mixed precision only the products are in the compute dtype.
def _multiply(vectors, matrix):
    # Each row of `vectors` is one sample's x. A is symmetric, so that x'A = (A x)'.
    return tf.matmul(vectors, tf.cast(matrix, vectors.dtype))
