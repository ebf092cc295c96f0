"""The update x(k+1) = x(k) + h sigma(transfer(x(k))), and its activations."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_iterconv._support.unfused import unfused
from keras_iterconv.unrolling.update import Update, masked, vjp


class Activation(NamedTuple):
    """A pointwise activation whose slope is a function of its value.

    Attributes:
        value: A function from a pre-activation to sigma(pre-activation).
        gradient: A function from `(upstream, value)` to upstream * sigma', where the value
            determines the slope sigma'.
        one_sided: Whether all values are at least 0 and the slope is 1 where a value is positive.
            A unit was then active in some update exactly where the sum of its values is positive.

    Example:
        >>> relu = ki.unrolling.ACTIVATIONS["relu"]
        >>> value = relu.value(tf.constant([-2.0, 3.0]))
        >>> value.numpy().tolist(), relu.gradient(tf.constant([1.0, 1.0]), value).numpy().tolist()
        ([0.0, 3.0], [0.0, 1.0])

    See also:
        `unrolling.EulerUpdate`; `unrolling.ACTIVATIONS`.
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


@dataclasses.dataclass(frozen=True)
class EulerUpdate(Update):
    """An explicit Euler step with a pointwise activation, x(k+1) = x(k) + h sigma(transfer(x(k))).

    The value sigma(...) of an update determines the slope of sigma, and the state before the
    update: the state after it minus h times the value. So the exact backward pass keeps one tensor
    for each update and computes none twice, where automatic differentiation would keep two or
    three.

    Attributes:
        transfer: A function from `(state, k, weights, drives)` to the pre-activation. The state is
            `[N, ...]` in the compute dtype, the pre-activation of the same shape in any float
            dtype, k is the number of the update, int32 from 0. It must not close over tensors: two
            updates with the same `transfer` share a graph.
        activation: sigma.
        step_size: h.
        dtype: The compute dtype, in which `transfer` gets the state. All else is computed in the
            state's dtype: outside of products, half precision gains nothing. On processors with
            AVX-512 a ReLU of bfloat16 takes twice the time of one of float32.
        tied: Whether the update is the same for all k.
        linear: Whether `transfer` is affine in the state.
        make_drives: As in `Update`.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> transfer = lambda x, k, weights, drives: -weights[0] * x
        >>> update = ki.unrolling.EulerUpdate(transfer, tanh, 0.5)
        >>> bound = update.bind(weights=(tf.constant(2.0),))
        >>> unrolled = ki.unrolling.unroll_fixed(bound, tf.ones([1, 1]), 1)
        >>> round(float(unrolled.state[0, 0]), 3)  # 1 - tanh(2) / 2
        0.518

    See also:
        `unrolling.Update`, for any step; `unrolling.Activation`; `IteratedBlock.euler_update`.
    """

    transfer: Callable[..., tf.Tensor]
    activation: Activation
    step_size: float = 1.0
    dtype: tf.DType = tf.float32
    tied: bool = True
    linear: bool = False
    make_drives: Callable[..., tuple] | None = None

    @property
    def two_sided(self) -> bool:
        """Whether the slope of the activation is positive everywhere, as that of tanh is."""
        return not self.activation.one_sided

    def step(
        self, state: tf.Tensor, k: int | tf.Tensor, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, tf.Tensor]:
        change, _, complete = self.begin_step(state, k, weights, drives)
        return complete(), change

    def begin_step(
        self, state: tf.Tensor, k: int | tf.Tensor, weights: tuple, drives: tuple
    ) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
        value = self.value(state, k, weights, drives)
        change = self.change(value)
        return change, value, lambda: state + change

    def kept_specs(self, state: tf.Tensor) -> tf.TensorSpec:
        return tf.TensorSpec([None, *state.shape[1:]], state.dtype)

    def step_back(
        self,
        after: tf.Tensor,
        k: int | tf.Tensor,
        kept: tf.Tensor,
        g: tf.Tensor,
        moved: tf.Tensor | None,
        weights: tuple,
        drives: tuple,
    ) -> tuple[tf.Tensor, tf.Tensor, list, list]:
        value, upstream = kept, g
        if moved is not None:
            # Updates that were computed for a stopped sample had no effect on its state.
            zeros = (tf.zeros_like(value), tf.zeros_like(g))
            value, upstream = masked(moved, (value, g), zeros)
        before = after - self.change(value)
        dstate, dweights, ddrives = self.change_vjp(before, k, value, upstream, weights, drives)
        return before, g + dstate, dweights, ddrives

    def value(
        self, state: tf.Tensor, k: int | tf.Tensor, weights: tuple, drives: tuple
    ) -> tf.Tensor:
        """Return sigma(transfer(state)), in the state's dtype.

        Args:
            state: x(k), `[N, ...]`.
            k: The number of the update, from 0.
            weights: The tensors that all samples share.
            drives: The tensors `[N, ...]`.
        """
        value = self._transfer(state, k, weights, drives)
        if not value.shape.is_compatible_with(state.shape):
            raise ValueError(
                f"`transfer` must return a pre-activation of the state's shape, "
                f"{tuple(state.shape)}. Received: a tensor of the shape {tuple(value.shape)}"
            )
        return self.activation.value(value)

    def change(self, value: tf.Tensor) -> tf.Tensor:
        """Return h times a value.

        Args:
            value: The value sigma(...) of the update, `[N, ...]`.
        """
        return value if self.step_size == 1 else self.step_size * value

    def change_vjp(
        self,
        state: tf.Tensor,
        k: int | tf.Tensor,
        value: tf.Tensor,
        g: tf.Tensor,
        weights: tuple,
        drives: tuple,
    ) -> tuple[tf.Tensor, list, list]:
        """Return the vector-Jacobian product of h sigma(transfer(state)) with g.

        Args:
            state: x, `[N, ...]`.
            k: The number of the update.
            value: The value sigma(...) that determines the slopes of sigma, `[N, ...]`.
            g: The vector, `[N, ...]`, in the state's dtype.
            weights: The update's weights.
            drives: The update's drives.

        Returns:
            `(state's, weights', drives')`: the products for the state, a tensor, and for the
            weights and the drives, two lists; each in the dtype of its tensor.
        """
        g = self.activation.gradient(self.change(g), value)
        return vjp(lambda: self._transfer(state, k, weights, drives), g, state, weights, drives)

    def _transfer(self, state, k, weights, drives):
        return tf.cast(self.transfer(tf.cast(state, self.dtype), k, weights, drives), state.dtype)
