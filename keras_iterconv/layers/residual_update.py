"""One update of a residual network whose transfer is computed by other layers."""

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_choice
from keras_iterconv.unrolling import ACTIVATIONS, Unrolled


@keras.saving.register_keras_serializable("keras_iterconv")
class ResidualUpdate(keras.layers.Layer):
    """The last line of a residual block: x(k+1) = x(k) + h sigma(transfer).

    The free blocks of the ResNet baselines are chains of ordinary layers that end in this one;
    it counts as a block of one update.

    Args:
        step_size: h, in (0, 1]; 1 in the original ResNet.
        activation: sigma, `"relu"` or `"tanh"`.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: The state x(k) and the transfer, e.g. A x(k) + b, of one shape `[N, ...]`.
        return_depth: Return an `Unrolled` of state, depth and status.

    Returns:
        x(k+1), of the state's shape; with `return_depth` also depth and status, int32 `[N]` each.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit each other.

    Reference:
        Ciccone et al. 2018, Eq. 1, and Eq. 3 with B = 0.
    """

    max_unroll = 1
    threshold = None

    def __init__(self, step_size: float = 1.0, activation: str = "relu", **kwargs):
        super().__init__(**kwargs)
        self.step_size = check_between("step_size", step_size, 0, 1, closed=True)
        self.activation = check_choice("activation", activation, ACTIVATIONS)

    def build(self, input_shape):
        try:
            state, transfer = (tuple(shape) for shape in input_shape)
        except (TypeError, ValueError):
            state, transfer = None, None
        # Broadcasting would hide a transfer of the wrong shape.
        if state is None or state != transfer:
            raise ValueError(
                "`inputs` must be the state and the transfer, two tensors of one shape. "
                f"Received: input_shape={input_shape}"
            )
        self.built = True

    def call(self, inputs, return_depth=False):
        state, transfer = inputs
        change = self.step_size * ACTIVATIONS[self.activation].value(transfer)
        # Not `+`: where the batch's size is unknown its gradient reckons with broadcasting.
        state = tf.add_n([state, change])
        if not return_depth:
            return state
        return Unrolled.fixed(state, 1)

    def compute_output_spec(self, inputs, return_depth=False):
        state = keras.KerasTensor(inputs[0].shape, dtype=self.compute_dtype)
        if return_depth:
            samples = inputs[0].shape[:1]
            # Two tensors: Keras tells them apart by their identity.
            return Unrolled(
                state,
                keras.KerasTensor(samples, dtype="int32"),
                keras.KerasTensor(samples, dtype="int32"),
            )
        return state

    def get_config(self):
        return {
            **super().get_config(),
            "step_size": self.step_size,
            "activation": self.activation,
        }
