"""The update that a loop repeats, x(k+1) = x(k) + h sigma(transfer(x(k)))."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_iterconv._support.unfused import unfused


class Activation(NamedTuple):
    """A pointwise activation whose slope is a function of its value.

    Attributes:
        value: A function from a pre-activation to sigma(pre-activation).
        gradient: A function from `(upstream, value)` to upstream * sigma', where the value
            determines the slope sigma'.
        one_sided: Whether all values are at least 0 and the slope is 1 where a value is positive.
            A unit was then active in some update exactly where the sum of its values is positive.
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
    """An update and all tensors that it depends on, so that it can run on a part of the batch.

    Attributes:
        transfer: A function from `(state, k, weights, drives)` to the pre-activation. State and
            pre-activation are `[N, ...]` in the compute dtype, k is the number of the update,
            int32 from 0. It must not close over tensors: two updates with the same `transfer`
            share a graph.
        activation: sigma.
        step_size: h.
        weights: Tensors that all samples share, in the dtype in which their gradients are summed.
        drives: Tensors `[N, ...]`, one entry for each sample; empty where `make_drives` is given.
        dtype: The compute dtype.
        tied: Whether the update is the same for all k.
        linear: Whether `transfer` is affine in the state.
        make_drives: None, or a function from `drive_inputs` to the tuple of drives, called once
            for all updates.
        drive_inputs: The arguments of `make_drives`, tensors; the first is `[N, ...]`.
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
        """All tensors that the update depends on: weights, drives and drive inputs."""
        return (*self.weights, *self.drives, *self.drive_inputs)

    @property
    def two_sided(self) -> bool:
        """Whether the slope of the activation is positive everywhere, as that of tanh is."""
        return not self.activation.one_sided

    def with_tensors(self, tensors) -> "Update":
        """Return the update with its tensors replaced, in the order of the property `tensors`."""
        remaining = iter(tensors)
        groups = (self.weights, self.drives, self.drive_inputs)
        weights, drives, inputs = (tuple(next(remaining) for _ in group) for group in groups)
        return self._replace(weights=weights, drives=drives, drive_inputs=inputs)

    def with_drives(self) -> "Update":
        """Return the update with its drives computed from `drive_inputs`."""
        if self.make_drives is None:
            return self
        return self._replace(
            drives=self.make_drives(*self.drive_inputs), make_drives=None, drive_inputs=()
        )

    def on(self, sample_indices: tf.Tensor) -> "Update":
        """Return the update of the samples at `sample_indices`, `[n]`, its drives computed."""
        return self._replace(
            drives=tuple(tf.gather(drive, sample_indices) for drive in self.drives)
        )

    def value(self, state: tf.Tensor, k) -> tf.Tensor:
        """Return sigma(transfer(state)), in the compute dtype."""
        return self.activation.value(self._transfer(state, k))

    def change(self, value: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Return h times a value, in the state's dtype."""
        return tf.cast(value if self.step_size == 1 else self.step_size * value, dtype)

    def vjp(self, state: tf.Tensor, k, value: tf.Tensor, g: tf.Tensor):
        """Return the vector-Jacobian product of h sigma(transfer(state)) with g.

        Args:
            state: x, `[N, ...]`.
            k: The number of the update.
            value: The value sigma(...) that determines the slopes of sigma, `[N, ...]`.
            g: The vector, `[N, ...]`, in the state's dtype.

        Returns:
            `(state's, weights', drives')`: the products for the state, a tensor, and for the
            weights and the drives, two lists; each in the dtype of its tensor.
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
