"""The update of a residual block whose pre-activation other layers compute."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_choice
from keras_iterconv.layers.protocol import Block, ImageSize
from keras_iterconv.layers.rules.rows import BlockRow, FreeRow
from keras_iterconv.unrolling import ACTIVATIONS, Unrolled


@keras.saving.register_keras_serializable("keras_iterconv")
class ResidualUpdate(Block, keras.layers.Layer):
    """The last step of a residual block: x(k+1) = x(k) + h sigma(transfer).

    The unconstrained blocks of the ResNet baselines are chains of Keras layers that end in this
    layer. It counts as a block of one update.

    Args:
        step_size: h, in (0, 1]; 1 in the original ResNet.
        activation: sigma, `"relu"` or `"tanh"`.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: The state x(k) and the pre-activation, e.g. A x(k) + b, of one shape `[N, ...]`.
        return_depth: Return an `Unrolled` of state, depth and status.

    Returns:
        x(k+1), of the state's shape; with `return_depth` also depth and status, int32 `[N]` each.

    Raises:
        ValueError: An argument is out of its range, or the inputs are not two tensors of one shape.

    Example:
        >>> x = np.array([[1.0, 2.0]])
        >>> transfer = np.array([[3.0, -3.0]])
        >>> ki.ResidualUpdate(step_size=0.5)([x, transfer]).numpy().tolist()  # ReLU drops the -3
        [[2.5, 2.0]]

    Reference:
        Ciccone et al. 2018, Eq. 1, and Eq. 3 with B = 0.

    See also:
        `NAISDense` and `NAISConv2D`, whose updates are stable; `ResidualStage`.
    """

    def __init__(self, step_size: float = 1.0, activation: str = "relu", **kwargs: Any):
        super().__init__(**kwargs)
        self.step_size = check_between("step_size", step_size, 0, 1, closed=True)
        self.activation = check_choice("activation", activation, ACTIVATIONS)

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        try:
            state, transfer = (tuple(shape) for shape in input_shape)
        except (TypeError, ValueError):
            state, transfer = None, None
        # Broadcasting would hide a pre-activation of the wrong shape.
        if state is None or state != transfer:
            raise ValueError(
                "`inputs` must be the state and the pre-activation, two tensors of one shape. "
                f"Received: input_shape={input_shape}"
            )
        self.built = True

    def call(self, inputs: Sequence[tf.Tensor], return_depth: bool = False) -> tf.Tensor | Unrolled:
        state, transfer = inputs
        change = self.step_size * ACTIVATIONS[self.activation].value(transfer)
        # Not `+`: for an unknown batch size its gradient includes reductions for broadcasting.
        state = tf.add_n([state, change])
        if not return_depth:
            return state
        return Unrolled.fixed(state, 1)

    def compute_output_spec(
        self, inputs: Sequence[tf.Tensor], return_depth: bool = False
    ) -> keras.KerasTensor | Unrolled:
        state = keras.KerasTensor(inputs[0].shape, dtype=self.compute_dtype)
        if return_depth:
            samples = inputs[0].shape[:1]
            # Two tensors, since Keras identifies tensors by `id`.
            return Unrolled(
                state,
                keras.KerasTensor(samples, dtype="int32"),
                keras.KerasTensor(samples, dtype="int32"),
            )
        return state

    def certificate_rows(self, image: ImageSize) -> list[BlockRow]:
        return [
            FreeRow(
                name=self.name,
                kind=type(self).__name__,
                holds=False,
                reason="the transfer is not constrained: no theorem covers it",
                step_size=self.step_size,
            )
        ]

    def lipschitz_gain(
        self,
        gains: Sequence[float],
        norm: str,
        rows: Sequence[BlockRow],
        options: Mapping[str, Any],
    ) -> float:
        state, transfer = gains
        return state + self.step_size * transfer

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "step_size": self.step_size,
            "activation": self.activation,
        }
