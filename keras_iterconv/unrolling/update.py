"""What a loop repeats: x(k+1) = x(k) + h sigma(transfer(x(k)))."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_iterconv._support.unfused import unfused


class Activation(NamedTuple):
    """A pointwise activation whose slope is a function of its value.

    Attributes:
        value: Maps a pre-activation to sigma of it.
        gradient: Maps `(upstream, value)` to upstream * sigma', the slope taken from the value.
        one_sided: Whether its values are never negative, and its slope 1 where they are positive:
            the sum of an unroll's values then says which units were active in it.
    """

    value: Callable[[tf.Tensor], tf.Tensor]
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    one_sided: bool = False


ACTIVATIONS = {
    "relu": Activation(
        lambda x: tf.nn.relu(unfused(x)),
        lambda g, value: tf.raw_ops.ReluGrad(gradients=g, features=value),
        one_sided=True,
    ),
    "tanh": Activation(tf.nn.tanh, lambda g, value: tf.raw_ops.TanhGrad(y=value, dy=g)),
}
IDENTITY = Activation(tf.identity, lambda g, value: g)


class Update(NamedTuple):
    """An update, and all that it depends on, so that it can run on a part of the batch.

    Attributes:
        transfer: Maps `(state, k, weights, drives)` to the pre-activation, of the state's shape,
            in the compute dtype: the state `[N, ...]` in it, the number k, int32 from 0, and
            the weights and drives below. It must not close over tensors: two updates with the
            same `transfer` share a graph.
        activation: sigma.
        step_size: h.
        weights: Tensors that all samples share, in the dtype that their gradients are summed in.
        drives: Tensors `[N, ...]` with a row for each sample; empty where `make_drives` makes them.
        dtype: The compute dtype.
        tied: Whether the update is the same for all k.
        linear: Whether `transfer` is linear in the state, up to a constant.
        make_drives: None, or maps `drive_inputs` to the tuple of drives, once for all updates.
        drive_inputs: The tensors that it takes, the first with a row for each sample.
    """

    transfer: Callable[..., tf.Tensor]
    activation: Activation
    step_size: float = 1.0
    weights: tuple = ()
    drives: tuple = ()
    dtype: tf.DType = tf.float32
    tied: bool = True
    linear: bool = False
    make_drives: Callable[..., tuple] | None = None
    drive_inputs: tuple = ()

    @property
    def tensors(self) -> tuple:
        """All tensors that the update depends on: weights, drives, inputs of the drives."""
        return (*self.weights, *self.drives, *self.drive_inputs)

    @property
    def two_sided(self) -> bool:
        """Whether the activation has a slope at every state."""
        return not self.activation.one_sided

    def with_tensors(self, tensors) -> "Update":
        """Return the update of other tensors, in the order of `tensors`."""
        rest = iter(tensors)
        parts = (self.weights, self.drives, self.drive_inputs)
        weights, drives, inputs = (tuple(next(rest) for _ in part) for part in parts)
        return self._replace(weights=weights, drives=drives, drive_inputs=inputs)

    def with_drives(self) -> "Update":
        """Return the update with its drives made."""
        if self.make_drives is None:
            return self
        return self._replace(
            drives=self.make_drives(*self.drive_inputs), make_drives=None, drive_inputs=()
        )

    def on(self, rows: tf.Tensor) -> "Update":
        """Return the update of some samples, `rows` of the batch, `[n]`."""
        return self._replace(drives=tuple(tf.gather(drive, rows) for drive in self.drives))

    def value(self, state: tf.Tensor, k) -> tf.Tensor:
        """Return sigma(transfer(state)), in the compute dtype."""
        return self.activation.value(self._transfer(state, k))

    def change(self, value: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Return h times a value, in the state's dtype."""
        return tf.cast(value if self.step_size == 1 else self.step_size * value, dtype)

    def vjp(self, state: tf.Tensor, k, value: tf.Tensor, g: tf.Tensor):
        """Return the gradient of g . h sigma(transfer(state)), the slopes taken from a value.

        Args:
            state: x, `[N, ...]`.
            k: The update's number.
            value: sigma(...) where the slopes are to be taken, `[N, ...]`.
            g: `[N, ...]`, in the state's dtype.

        Returns:
            `(state's, weights', drives')`: a tensor, and two lists, in the dtypes of what they
            belong to.
        """
        g = tf.cast(g if self.step_size == 1 else self.step_size * g, value.dtype)
        g = self.activation.gradient(g, value)
        with tf.GradientTape() as tape:
            tape.watch((state, self.weights, self.drives))
            transfer = self._transfer(state, k)
        return tape.gradient(
            transfer,
            (state, list(self.weights), list(self.drives)),
            output_gradients=g,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def _transfer(self, state, k):
        return self.transfer(tf.cast(state, self.dtype), k, self.weights, self.drives)
