"""The base class of blocks that repeat an update on a state."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_choice
from keras_iterconv._support.graph_function import shared_functions
from keras_iterconv.layers.adjustable_depth import AdjustableDepth, check_settling
from keras_iterconv.layers.projected_weights import ProjectedWeights
from keras_iterconv.unrolling import (
    ACTIVATIONS,
    MODES,
    SOLVERS,
    BoundUpdate,
    EulerUpdate,
    Unrolled,
    call_traced_once,
    check_anderson,
    settling_term,
    unroll_anderson,
    unroll_traced,
    with_last_states,
)
from keras_iterconv.unrolling.samples import per_sample, samples_finite

INITIAL_STATES = ("zeros", "input")


class IteratedBlock(AdjustableDepth, ProjectedWeights):
    """Base class of the blocks that repeat an update on a state, such as the NAIS-Net blocks.

    A subclass defines:

    - `build_update(inputs)` returns the update for the inputs u with its tensors: for
      x(k+1) = x(k) + h sigma(transfer(x(k), u)) it is
      `self.euler_update(transfer).bind(weights, drives)`, else an `Update` of its own. Only
      `euler_update` reads the arguments `step_size` and `activation`.
    - `state_channels`, a property: the size of the state's last axis, if it is not that of u.
    - `build(input_shape)` calls `check_inputs(input_shape)`, creates each weight of the update by
      `add_update_weight`, and sets `built`. `__init__` may set `input_spec` to require a rank.
    - `get_config` adds the subclass's own arguments.

    It states what is true of its update by class attributes: `linear`, if the pre-activation is
    affine in the state, as A x + B u + b is; and `channels_first`, if `build_update` has an
    argument `data_format`, `"NHWC"` or `"NCHW"`, which the export to ONNX uses. Further hooks, with
    their defaults, are those of `Block`. The state is float32 or float64, also under a mixed
    precision policy: in half precision, updates with norms near the threshold would be rounded
    away.

    Args:
        max_unroll: The number of updates if `threshold` is None, else the largest number.
        threshold: The stopping threshold: a sample stops after the first update whose 2-norm is
            below it. None for exactly `max_unroll` updates.
        step_size: h, in (0, 1].
        activation: `"relu"` or `"tanh"`.
        initial_state: x(0): `"zeros"`, or `"input"` where u has as many channels as the state.
        gradient: The gradient mode in training: `"unroll"` is exact and keeps a tensor for each
            update; `"recompute"` is exact, keeps none and computes the updates twice;
            `"implicit"` (tied tanh blocks) is exact where the last state is a fixed point;
            `"frozen"` is biased and the fastest, and uses one slope of each unit's activation for
            all updates. Outside training the mode is always `"recompute"`.
        tied: Whether all updates share one set of weights.
        solver: The method that finds the fixed point outside training, for a block with a
            threshold: `"picard"` repeats the update; `"anderson"` (tied tanh blocks) is Anderson
            acceleration with `"picard"` as fallback. Training always repeats the update.
        settling: In training, this number times the mean over the samples of the squared 2-norm of
            the last update, relative to that of the last state, is added to the loss. It is for the
            gradients `"unroll"` and `"recompute"`; the others have none of the last update.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: u, `[N, ..., channels]`.
        training: Whether a backward pass will follow.
        return_depth: Whether to return also each sample's number of updates and its
            `keras_iterconv.unrolling.Status`, int32 `[N]` each.

    Returns:
        The last state, in the layer's compute dtype; an `Unrolled` with `return_depth`.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit the block.

    Example:
        >>> class Decay(ki.IteratedBlock):
        ...     def build(self, input_shape):
        ...         self.check_inputs(input_shape)
        ...         self.built = True
        ...
        ...     def build_update(self, inputs):
        ...         return self.euler_update(lambda x, k, weights, drives: -x).bind()
        >>> block = Decay(max_unroll=2, step_size=0.5, activation="tanh")
        >>> round(float(block(np.ones((1, 1)))[0, 0]), 3)  # 1, 0.619, 0.344
        0.344

    See also:
        `Iterate`, which needs no class; `NAISDense`; `NAISConv2D`; `unrolling.Update`.
    """

    # A subclass whose pre-activation is affine in the state says so; `frozen` and `implicit` are
    # wrong for any other.
    linear = False
    adds_change = True
    # Keras sets it to None.
    input_spec: Any

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # What a base class states of its update is not true of another one.
        if "build_update" in vars(cls) and "linear" not in vars(cls):
            cls.linear = False

    def __init__(
        self,
        max_unroll: int = 10,
        threshold: float | None = None,
        step_size: float = 1.0,
        activation: str = "relu",
        initial_state: str = "input",
        gradient: str = "unroll",
        tied: bool = True,
        solver: str = "picard",
        settling: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.settling = check_settling(settling)
        self.solver = check_choice("solver", solver, SOLVERS)
        self.set_up_depth(max_unroll, threshold, tied)
        self.step_size = check_between("step_size", step_size, 0, 1, closed=True)
        self.activation = check_choice("activation", activation, ACTIVATIONS)
        self.initial_state = check_choice("initial_state", initial_state, INITIAL_STATES)
        self.gradient = check_choice("gradient", gradient, MODES)
        MODES[gradient].check(self)
        if solver == "anderson":
            check_anderson(self)
        # Keras compiles with XLA if all layers support it. XLA runs these loops 40 times slower on
        # a CPU, and cannot differentiate a loop whose length depends on the data.
        self.supports_jit = False

    @property
    def needs_threshold(self) -> str | None:
        """Why the block cannot do without a stopping threshold; None if it can."""
        if self.solver == "picard":
            return None
        reason = "Anderson acceleration does not make a fixed number of updates"
        return f'with `solver="anderson"`: {reason}'

    @property
    def two_sided(self) -> bool:
        """Whether the slope of the activation is positive everywhere, as that of tanh is."""
        return not ACTIVATIONS[self.activation].one_sided

    @property
    def state_channels(self) -> int | None:
        """The size of the state's last axis; by default that of the inputs, None before `build`."""
        return None if self.input_spec is None else (self.input_spec.axes or {}).get(-1)

    @property
    def state_dtype(self) -> str:
        """The dtype of the state inside the loop: float32, or float64 for a float64 layer."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def check_inputs(self, input_shape: Sequence[int | None]) -> None:
        """Check the shape of the inputs; `build` calls this method first.

        It sets `input_spec` to the number of channels, and to the rank if that was not set.

        Args:
            input_shape: The shape of u, `(None, ..., channels)`.

        Raises:
            ValueError: The rank is not that of `input_spec`, the number of channels is unknown, or
                it is not that of the state although the state starts at u.
        """
        channels = input_shape[-1]
        rank = len(input_shape) if self.input_spec is None else self.input_spec.ndim
        if len(input_shape) != rank or channels is None:
            raise ValueError(
                f"The inputs of {self.name!r} must have {rank} axes, the last of a known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        state_channels = self.state_channels or channels
        if self.initial_state == "input" and channels != state_channels:
            raise ValueError(
                f'`initial_state="input"` needs inputs with as many channels as the state, '
                f"{state_channels}; change the inputs' channels or use "
                f'`initial_state="zeros"`. Received: input_shape={tuple(input_shape)}'
            )
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes={-1: channels})

    def build_update(self, inputs: tf.Tensor) -> BoundUpdate:
        """Return the block's update for the inputs u, with its tensors.

        Args:
            inputs: u, `[N, ..., channels]`, in the compute dtype.
        """
        raise NotImplementedError

    def euler_update(
        self, transfer: Callable[..., tf.Tensor], make_drives: Callable[..., tuple] | None = None
    ) -> EulerUpdate:
        """Return x + h sigma(transfer(x)) with the block's activation, step size and dtype.

        Args:
            transfer: A function from `(state, k, weights, drives)` to the pre-activation, as in
                `EulerUpdate`.
            make_drives: None, or a function that computes the drives once, as in `Update`.
        """
        return EulerUpdate(
            transfer,
            ACTIVATIONS[self.activation],
            self.step_size,
            tf.as_dtype(self.compute_dtype),
            self.tied,
            self.linear,
            make_drives,
        )

    def make_initial_state(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return x(0) for the inputs u, in the state's dtype.

        Args:
            inputs: u, `[N, ..., channels]`.
        """
        if self.initial_state == "input":
            return tf.cast(inputs, self.state_dtype)
        # NaNs and infinities in u must reach the state: a ReLU that is fused with a convolution
        # may turn NaN into 0, and tanh maps infinity to 1. So x(0) is NaN for such samples, and
        # all later states are NaN.
        not_finite = per_sample(~samples_finite(inputs), inputs)
        zero = tf.zeros([], self.state_dtype)
        static = self.compute_output_shape(inputs.shape)
        shape = tf.concat([tf.shape(inputs)[:-1], static[-1:]], axis=0)
        state = tf.broadcast_to(tf.where(not_finite, zero + float("nan"), zero), shape)
        return tf.ensure_shape(state, static)

    def _initial_state(self, inputs: tf.Tensor) -> tf.Tensor:
        state = self.make_initial_state(inputs)
        expected = self.compute_output_shape(inputs.shape)
        if not state.shape.is_compatible_with(expected) or state.dtype.name != self.state_dtype:
            raise ValueError(
                f"`make_initial_state` of {self.name!r} must return a state of the shape "
                f"{tuple(expected)} and dtype {self.state_dtype}. "
                f"Received: a tensor of shape {tuple(state.shape)} and dtype {state.dtype.name}"
            )
        return state

    def update(self, state: tf.Tensor, inputs: tf.Tensor, k: int = 0) -> tf.Tensor:
        """Return the state after one update.

        Args:
            state: x(k), `[N, ..., state_channels]`.
            inputs: u, `[N, ..., channels]`.
            k: The number of the update, from 0; only untied blocks depend on it.

        Returns:
            x(k+1), of the state's shape, in `state_dtype`.

        Raises:
            ValueError: The shape of `inputs` or `state` does not fit the block, or k is not the
                number of one of its updates.

        Example:
            >>> block = ki.NAISDense(8, max_unroll=2)
            >>> u = np.ones((1, 4), "float32")
            >>> state = block.update(block.update(np.zeros((1, 8), "float32"), u), u)
            >>> np.allclose(state, block(u), atol=1e-6)
            True

        See also:
            `IteratedBlock.run_to`, for another number of updates; `ResidualStage.update`.
        """
        inputs = tf.cast(inputs, self.compute_dtype)
        state = tf.cast(state, self.state_dtype)
        if not self.built:
            self.build(inputs.shape)
        expected = self.compute_output_shape(inputs.shape)
        channels = self.input_spec.axes[-1]
        if inputs.shape.rank != self.input_spec.ndim or inputs.shape[-1] != channels:
            raise ValueError(
                f"`inputs` must have {self.input_spec.ndim} axes and {channels} channels. "
                f"Received: inputs of shape {tuple(inputs.shape)}"
            )
        if not state.shape.is_compatible_with(expected):
            raise ValueError(
                f"`state` must have the shape {expected}. Received: one of {tuple(state.shape)}"
            )
        if not 0 <= k < self.max_unroll:
            raise ValueError(f"`k` must be from 0 to {self.max_unroll - 1}. Received: k={k}")
        new, _ = self.build_update(inputs).with_drives().step(state, tf.constant(k))
        return new

    @property
    def cannot_stream(self) -> str | None:
        if self.solver != "picard":
            return f'it has `solver="{self.solver}"`, which keeps a history of the whole batch'
        return super().cannot_stream

    def iterate(
        self,
        update: BoundUpdate,
        state: tf.Tensor,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor,
        training: bool | None = None,
    ) -> Unrolled:
        """Repeat an update with the block's solver and gradient mode.

        Args:
            update: The update: the block's, or the same in another data format.
            state: x(0), in `state_dtype`.
            max_unroll: The number of updates, or the largest number; an int32 scalar.
            threshold: The stopping threshold, a scalar; not read if that of the block is None.
            training: Whether a backward pass will follow.

        Returns:
            An `Unrolled`.

        See also:
            `IteratedBlock.build_update`; `unrolling.unroll_adaptive`; `unrolling.unroll_anderson`.
        """
        if self.solver == "anderson" and not training:
            max_unroll, threshold = map(tf.convert_to_tensor, (max_unroll, threshold))
            return call_traced_once(unroll_anderson, update, state, max_unroll, threshold)
        limits = max_unroll, None if self.threshold is None else threshold
        # Outside training a backward pass is rare, so that no tensors are kept for it.
        if not training:
            return unroll_traced(update, state, *limits, "recompute")
        # Graphs of training are not exported.
        with shared_functions():
            if not self.settling:
                return unroll_traced(update, state, *limits, self.gradient)
            update, last = with_last_states(update, state)
            unrolled = unroll_traced(update, last, *limits, self.gradient)
        self.add_loss(self.settling * settling_term(unrolled.state))
        return unrolled._replace(state=unrolled.state.x)

    def run_to(
        self,
        inputs: tf.Tensor,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None = None,
        **options: Any,
    ) -> Unrolled:
        inputs = tf.cast(inputs, self.compute_dtype)
        update, state = self.build_update(inputs), self._initial_state(inputs)
        return self.iterate(update, state, max_unroll, 0.0 if threshold is None else threshold)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, return_depth: bool = False
    ) -> tf.Tensor | Unrolled:
        # Images may be integers, which Keras does not cast.
        inputs = tf.cast(inputs, self.compute_dtype)
        update = self.build_update(inputs)
        state = self._initial_state(inputs)
        unrolled = self.as_outputs(self.iterate(update, state, *self.depth_variables, training))
        return unrolled if return_depth else unrolled.state

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.state_channels or input_shape[-1])

    def compute_output_spec(
        self, inputs: tf.Tensor, training: bool | None = None, return_depth: bool = False
    ) -> keras.KerasTensor | Unrolled:
        # Given explicitly, since Keras would trace the whole loop to infer it.
        state = keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)
        if not return_depth:
            return state
        counts = [keras.KerasTensor(inputs.shape[:1], dtype="int32") for _ in range(2)]
        return Unrolled(state, *counts)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **self.depth_config(),
            "step_size": self.step_size,
            "activation": self.activation,
            "initial_state": self.initial_state,
            "gradient": self.gradient,
            "solver": self.solver,
            "settling": self.settling,
        }
