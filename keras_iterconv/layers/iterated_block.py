"""What every block has that repeats an update on a state."""

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_choice, check_positive_int
from keras_iterconv.layers.guaranteed_layer import GuaranteedLayer
from keras_iterconv.layers.stacked_variables import draw_stack, mark_stack
from keras_iterconv.unrolling import (
    ACTIVATIONS,
    MODES,
    SOLVERS,
    Unrolled,
    Update,
    call_traced_once,
    unroll_adaptive,
    unroll_anderson,
    unroll_fixed,
)
from keras_iterconv.unrolling.samples import per_sample, samples_finite

INITIAL_STATES = ("zeros", "input")


# By how much a projected weight may change, relatively, when it is projected again: a float32 sum
# of some thousand numbers, rounded. Certificates allow five times as much.
ROUNDING = 2e-6


class IteratedBlock(GuaranteedLayer):
    """Base of the blocks x(k+1) = x(k) + h sigma(A x(k) + B u + b).

    A subclass builds the weights and says, in `_make_increment`, what an update adds. The state
    is held in float32 or better, also under a mixed precision policy: an update near the
    threshold would be lost in the rounding of a half precision state.

    Args:
        max_unroll: The number of updates where `threshold` is None, else the largest number.
        threshold: None, or the 2-norm under which a sample's update counts as none: that sample
            then stops, by itself.
        step_size: h, in (0, 1].
        activation: `"relu"` or `"tanh"`.
        initial_state: x(0): `"zeros"`, or `"input"` where u has as many channels as the state.
        gradient: How the backward pass runs, in training: `"unroll"`, exact, keeps a state for
            each update; `"recompute"`, exact, keeps none and makes the updates twice;
            `"implicit"` (tied tanh blocks) takes the last state for a fixed point, and is exact
            at one; `"frozen"`, the fastest and biased, takes one slope of a unit's activation for
            all its updates. Outside training an exact gradient is always recomputed.
        tied: Whether all updates share one set of weights.
        solver: How a block with a threshold looks for the settled state outside training:
            `"picard"`, update by update, or `"anderson"` (tied tanh blocks), which skips ahead and
            falls back to the former. Training always goes update by update.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: u, `[N, ..., channels]`.
        training: Whether a backward pass will follow.
        return_depth: Also return, int32 `[N]` each, the number of updates that each sample took
            and its `keras_iterconv.unrolling.Status`.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit the block.
    """

    # Whether the pre-activation is linear in the state, as A x + B u + b is.
    linear = True

    def __init__(
        self,
        max_unroll: int,
        threshold: float | None,
        step_size: float,
        activation: str,
        initial_state: str,
        gradient: str,
        tied: bool,
        solver: str = "picard",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tied = bool(tied)
        self.solver = check_choice("solver", solver, SOLVERS)
        # In variables, so that compiled functions see a change.
        with tf.init_scope():
            self._max_unroll_variable = tf.Variable(1, trainable=False, dtype=tf.int32)
            self._threshold_variable = tf.Variable(0, trainable=False, dtype=tf.float64)
        self._weights_for = check_positive_int("max_unroll", max_unroll)
        self.max_unroll = max_unroll
        self.threshold = threshold
        self.step_size = check_between("step_size", step_size, 0, 1, closed=True)
        self.activation = check_choice("activation", activation, ACTIVATIONS)
        self.initial_state = check_choice("initial_state", initial_state, INITIAL_STATES)
        self.gradient = check_choice("gradient", gradient, MODES)
        MODES[gradient].check(self)
        if solver == "anderson" and not (self.tied and activation == "tanh"):
            raise ValueError(
                '`solver="anderson"` needs `activation="tanh"` and `tied=True`: only there each '
                "input has one settled state, whichever way leads to it. "
                f"Received: activation={activation!r}, tied={tied!r}"
            )
        # Keras compiles with XLA wherever every layer allows it: that is 40 times slower for
        # these loops on a CPU, and XLA cannot differentiate a loop whose end depends on the data.
        self.supports_jit = False

    @property
    def two_sided(self) -> bool:
        """Whether the activation has a slope at every state, as tanh has."""
        return not ACTIVATIONS[self.activation].one_sided

    @property
    def max_unroll(self) -> int:
        """The number of updates, or the largest number where there is a threshold.

        It can be set at any time, also where the block is part of a compiled model. An untied
        block has weights for as many updates as it was made with, and saves that number.
        """
        return self._max_unroll_value

    @max_unroll.setter
    def max_unroll(self, value: int):
        value = check_positive_int("max_unroll", value)
        if not self.tied and value > self._weights_for:
            raise ValueError(
                f"`max_unroll` of {self.name!r} must be at most {self._weights_for}: it is "
                f"untied, and has weights for no more updates. Received: max_unroll={value}"
            )
        self._max_unroll_value = value
        self._max_unroll_variable.assign(value)

    @property
    def threshold(self) -> float | None:
        """The norm below which an update counts as none, None for a fixed depth.

        One number can be set for another at any time. A change between None and a number makes
        another graph: compiled functions must be made anew, as `keras_iterconv.set_depth` does.
        """
        return self._threshold_value

    @threshold.setter
    def threshold(self, value: float | None):
        if value is not None:
            value = check_between("threshold", value, 0, float("inf"), least=0)
            self._threshold_variable.assign(value)
        elif self.solver == "anderson":
            raise ValueError(
                '`threshold` must be a number with `solver="anderson"`: a fixed depth promises '
                "each update. Received: threshold=None"
            )
        self._threshold_value = value

    @property
    def depth_variables(self) -> tuple[tf.Variable, tf.Variable]:
        """What traced graphs read `max_unroll` and `threshold` from; no weights."""
        return self._max_unroll_variable, self._threshold_variable

    @property
    def state_channels(self) -> int:
        """The size of the state's last axis."""
        raise NotImplementedError

    @property
    def state_dtype(self) -> str:
        """The dtype of the state inside the loop: float32, or float64 for a float64 layer."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _check_inputs(self, input_shape):
        """Check the inputs' rank, and fix their channels once they are known."""
        rank, channels = self.input_spec.ndim, input_shape[-1]
        if len(input_shape) != rank or channels is None:
            raise ValueError(
                f"The inputs of {self.name!r} must have {rank} axes, the last of a known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if self.initial_state == "input" and channels != self.state_channels:
            raise ValueError(
                f'`initial_state="input"` needs inputs with as many channels as the state, '
                f"{self.state_channels}; change the inputs' channels or take "
                f'`initial_state="zeros"`. Received: input_shape={tuple(input_shape)}'
            )
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes={-1: channels})

    def _add_stack(self, name, shape, initializer, constraint=None):
        """Add a weight of `shape` where tied, else of `[max_unroll, *shape]`, as it was made with.

        Args:
            name: The weight's name.
            shape: The shape for one update.
            initializer: A function of no arguments that makes a Keras initializer.
            constraint: The weight's projection, applied to the initial value too.
        """

        def initial_value(shape, dtype=None):
            if self.tied:
                value = initializer()(shape, dtype)
            else:
                value = draw_stack(initializer, shape, dtype)
            return value if constraint is None else constraint(value)

        if not self.tied:
            shape = (self._weights_for, *shape)
        weight = self.add_weight(
            shape=shape,
            initializer=initial_value,
            constraint=constraint,
            # Its gradients are summed over the updates, in float32 under every policy.
            autocast=False,
            name=name,
        )
        if not self.tied:
            mark_stack(weight)
        return weight

    def guaranteed_variables(self):
        return [weight for weight in self.weights if weight.constraint is not None]

    def _restore_guarantee(self):
        # In the order in which the layer added them: the kernel's projection reads delta.
        for weight in self.guaranteed_variables():
            projected = weight.constraint(weight)
            if not np.allclose(weight.numpy(), projected, rtol=ROUNDING, atol=0, equal_nan=True):
                weight.assign(projected)

    def build_update(self, inputs) -> Update:
        """Return the update for u, `inputs` in the compute dtype."""
        raise NotImplementedError

    def _new_update(self, transfer, weights: tuple, drives: tuple = (), **options) -> Update:
        """Return the update with this transfer and the block's activation, step and dtype."""
        return Update(
            transfer,
            ACTIVATIONS[self.activation],
            self.step_size,
            weights,
            drives,
            tf.as_dtype(self.compute_dtype),
            self.tied,
            self.linear,
            **options,
        )

    def make_initial_state(self, inputs):
        """Return x(0) in the state's dtype."""
        if self.initial_state == "input":
            return tf.cast(inputs, self.state_dtype)
        # A NaN or an infinity in u must not be lost: a ReLU that is fused with its convolution may
        # turn NaN into 0, and tanh makes an infinity finite. A NaN in the state stays.
        bad = per_sample(~samples_finite(inputs), inputs)
        zero = tf.zeros([], self.state_dtype)
        shape = tf.concat([tf.shape(inputs)[:-1], [self.state_channels]], axis=0)
        state = tf.broadcast_to(tf.where(bad, zero + float("nan"), zero), shape)
        return tf.ensure_shape(state, [*inputs.shape[:-1], self.state_channels])

    def update(self, state, inputs, k: int = 0):
        """Make one update by itself.

        Args:
            state: x(k), `[N, ..., state_channels]`.
            inputs: u, `[N, ..., channels]`.
            k: The update's number from 0; it matters only for untied weights.

        Returns:
            x(k+1), of the state's shape, in `state_dtype`.

        Raises:
            ValueError: `inputs` or `state` do not fit the block, or k is no update of it.
        """
        inputs = tf.cast(inputs, self.compute_dtype)
        state = tf.cast(state, self.state_dtype)
        if not self.built:
            self.build(inputs.shape)
        expected = (*inputs.shape[:-1], self.state_channels)
        channels = self.input_spec.axes[-1]
        if inputs.shape.rank != self.input_spec.ndim or inputs.shape[-1] != channels:
            raise ValueError(
                f"`inputs` must have {self.input_spec.ndim} axes and {channels} channels. "
                f"Received: inputs of shape {tuple(inputs.shape)}"
            )
        if not state.shape.is_compatible_with(expected):
            raise ValueError(
                f"`state` must have the shape {expected}. "
                f"Received: state of shape {tuple(state.shape)}"
            )
        if not 0 <= k < self.max_unroll:
            raise ValueError(f"`k` must be from 0 to {self.max_unroll - 1}. Received: k={k}")
        update = self.build_update(inputs).with_drives()
        return state + update.change(update.value(state, tf.constant(k)), state.dtype)

    def iterate(self, update: Update, state, max_unroll, threshold, training=None) -> Unrolled:
        """Repeat an update, the block's own or that of another layout, to any depth.

        Args:
            update: What to repeat.
            state: x(0), in `state_dtype`.
            max_unroll: The number of updates, or the largest number; an int32 scalar.
            threshold: A scalar; of no effect where the block's own is None.
            training: Whether a backward pass will follow.
        """
        # Nothing is kept for a backward pass that nearly never comes outside training.
        gradient = self.gradient if training else "recompute"
        limit, bound = (tf.convert_to_tensor(value) for value in (max_unroll, threshold))
        if self.threshold is None:
            return call_traced_once(unroll_fixed, update, state, limit, gradient=gradient)
        if self.solver == "anderson" and not training:
            return call_traced_once(unroll_anderson, update, state, limit, bound)
        return call_traced_once(unroll_adaptive, update, state, limit, bound, gradient=gradient)

    def call(self, inputs, training=None, return_depth=False):
        # Keras casts floats only; pictures may come as integers.
        inputs = tf.cast(inputs, self.compute_dtype)
        update = self.build_update(inputs)
        state = self.make_initial_state(inputs)
        unrolled = self.iterate(update, state, *self.depth_variables, training)
        state = tf.cast(unrolled.state, self.compute_dtype)
        if return_depth:
            return Unrolled(state, unrolled.depth, unrolled.status)
        return state

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.state_channels)

    def compute_output_spec(self, inputs, training=None, return_depth=False):
        # Said outright: Keras would trace the whole loop to find it.
        state = keras.KerasTensor(
            (*inputs.shape[:-1], self.state_channels), dtype=self.compute_dtype
        )
        if return_depth:
            per_sample = inputs.shape[:1]
            return Unrolled(
                state,
                keras.KerasTensor(per_sample, dtype="int32"),
                keras.KerasTensor(per_sample, dtype="int32"),
            )
        return state

    def get_config(self):
        return {
            **super().get_config(),
            "max_unroll": self.max_unroll if self.tied else self._weights_for,
            "threshold": self.threshold,
            "step_size": self.step_size,
            "activation": self.activation,
            "initial_state": self.initial_state,
            "gradient": self.gradient,
            "tied": self.tied,
            "solver": self.solver,
        }
