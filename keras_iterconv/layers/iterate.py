"""The layer that repeats any Keras layer on a state, and stops each sample by itself."""

import numbers
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_choice, check_positive_int
from keras_iterconv._support.private_keras import mask_of, serialize_shared
from keras_iterconv.layers.adjustable_depth import AdjustableDepth, check_settling
from keras_iterconv.layers.iterate_arguments import (
    called_spec,
    check_returns,
    check_spec,
    check_truncate,
    map_shapes,
    spec_of_outputs,
)
from keras_iterconv.layers.iterated_call import IteratedCall
from keras_iterconv.layers.layer_update import (
    has_positions,
    output_spec,
    takes_inputs,
    with_mask,
)
from keras_iterconv.layers.update_copies import copy_layer
from keras_iterconv.stop import Halting, StoppingRule, UpdateNorm
from keras_iterconv.unrolling import BoundUpdate, Unrolled
from keras_iterconv.unrolling.gradients.fixed_point import fixed_point_mode
from keras_iterconv.unrolling.stopping import StoppingRule as UnrollingRule

GRADIENTS = ("unroll", "recompute", "truncated", "implicit")


@keras.saving.register_keras_serializable("keras_iterconv")
class Iterate(AdjustableDepth, keras.layers.Layer):
    """Repeat an update, given as a Keras layer or model, and stop each sample by itself.

    Samples that have stopped leave the batch, so that an adaptive depth saves time, and the result
    of a sample depends on no other. In training with dropout or batch normalisation inside the
    update, all samples stay in the batch; stopped ones keep their states, and count in the
    statistics of the batch. The states are float32, or float64 for a float64 layer.

    Args:
        update: A Keras layer or model that returns a state like the one it gets. A layer is called
            `update(state, inputs)`, or `update(state)` where its call takes one argument; a
            functional model is called with the list of the state's tensors, and the inputs last.
            Losses that it adds by `add_loss` are dropped.
        max_unroll: The number of updates, or the largest number with a stopping rule.
        stop: A rule of `keras_iterconv.stop`; a number t for `UpdateNorm(t)`; None for exactly
            `max_unroll` updates.
        min_unroll: The number of updates from which on the rule counts.
        initial_state: x(0): `"input"`, the inputs, one tensor; `"zeros"` of the shape of the
            inputs; or a Keras layer or model from the inputs to the state, which may be a
            structure of tensors `[N, ...]`.
        tied: Whether all updates share the weights of `update`. Else there are `max_unroll` copies
            of it, each with initial weights of its own.
        gradient: `"unroll"` is exact and keeps the state before each update; `"recompute"` is
            exact, keeps none and computes the updates twice; `"truncated"` is the gradient of each
            sample's last `truncate` updates, with the state before them as a constant, and of
            `Halting` the probabilities before them;
            `"implicit"` (tied) is that of the fixed point which the last state approximates, for an
            update that contracts, and keeps none. It stops with an error where the terms of its
            series do not shrink to nothing. It is not for masks and `Halting`.
        truncate: The number of updates of the mode `"truncated"`.
        settling: In training, this number times the mean over the samples of the squared 2-norm of
            the last update, relative to that of the last state, is added to the loss. It is not for
            the gradient `"implicit"`, which has none of the last update, and not for `Halting`.
        returns: What to return beside the last state, in a dict: `"readout"`, what the readout of
            the rule makes of it; and `"states"`, x(1) to x(max_unroll), `[N, max_unroll, ...]`, of
            which the last is repeated where a sample has stopped. The states need the gradient
            `"unroll"`, and all samples stay in the batch.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: A tensor or structure of tensors `[N, ...]`.
        training: Whether a backward pass will follow.
        mask: A Keras mask, bool `[N, positions]`: positions where it is false keep their state, and
            count in no norm. It applies to state tensors `[N, positions, ..., features]`; a state
            tensor `[N, size]` has no positions.
        return_depth: Whether to return also each sample's number of updates and its
            `keras_iterconv.unrolling.Status`, int32 `[N]` each.

    Returns:
        The last state, in the layer's compute dtype; an `Unrolled` with `return_depth`.

    Raises:
        ValueError: An argument is out of its range, or the update does not return a state like the
            one it gets.

    Example:
        >>> small = keras.initializers.Orthogonal(0.8)  # a contraction
        >>> update = keras.layers.Dense(8, activation="tanh", kernel_initializer=small)
        >>> layer = ki.Iterate(update, max_unroll=100, stop=1e-3)
        >>> inputs = np.ones((3, 8)) * [[0.0], [0.01], [1.0]]
        >>> state, depth, status = layer(inputs, return_depth=True)
        >>> depth.numpy().tolist()  # each sample stops by itself
        [1, 18, 35]

    See also:
        `stop.UpdateNorm` and the other rules; `NAISDense`, whose updates are stable; `set_depth`;
        `calibrate_depth`; `IteratedBlock`, for a block as a class.
    """

    linear = False
    two_sided = False

    def __init__(
        self,
        update: keras.layers.Layer,
        max_unroll: int = 10,
        stop: StoppingRule | float | None = None,
        min_unroll: int = 1,
        initial_state: str | keras.layers.Layer = "input",
        tied: bool = True,
        gradient: str = "unroll",
        truncate: int | None = None,
        settling: float = 0.0,
        returns: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(update, keras.layers.Layer):
            raise ValueError(
                "`update` must be a Keras layer or model that is called on the state. "
                f"Received: update={update!r}"
            )
        self.update = update
        if not isinstance(initial_state, keras.layers.Layer):
            check_choice("initial_state", initial_state, ("input", "zeros"))
        self.initial_state = initial_state
        if isinstance(stop, numbers.Real) and not isinstance(stop, bool):
            stop = UpdateNorm(float(stop))
        if stop is not None and not isinstance(stop, StoppingRule):
            raise ValueError(
                "`stop` must be a rule of `keras_iterconv.stop`, a number for `UpdateNorm`, or "
                f"None. Received: stop={stop!r}"
            )
        self.stop = stop
        self.readout: Any = None if stop is None else stop.readout
        self.set_up_depth(max_unroll, None if stop is None else stop.threshold, tied)
        self.min_unroll = check_positive_int("min_unroll", min_unroll)
        if self.min_unroll > self.max_unroll:
            raise ValueError(
                f"`min_unroll` must be at most `max_unroll`, {self.max_unroll}. "
                f"Received: min_unroll={min_unroll}"
            )
        self.gradient = check_choice("gradient", gradient, GRADIENTS)
        self.truncate = check_truncate(truncate, gradient, self.max_unroll)
        self.settling = check_settling(settling)
        self.returns = check_returns(returns, self.readout)
        if "states" in self.returns and gradient != "unroll":
            raise ValueError(
                '`returns=("states",)` needs `gradient="unroll"`, since the states are kept. '
                f"Received: gradient={gradient!r}"
            )
        if gradient == "implicit":
            fixed_point_mode(self.name).check(self)
        if gradient == "implicit" and isinstance(stop, Halting):
            raise ValueError(
                '`gradient="implicit"` is not for `Halting`, whose output is a mean of the states '
                "and no fixed point. Use \"recompute\". Received: gradient='implicit'"
            )
        if self.settling and isinstance(stop, Halting):
            raise ValueError(
                "`settling` is not for `Halting`, whose output is a mean of the states. "
                f"Received: settling={settling}"
            )
        # XLA cannot differentiate a loop whose length depends on the data.
        self.supports_jit = False
        self.supports_masking = True
        self._call: Any = None

    @property
    def state_dtype(self) -> str:
        """The dtype of the state inside the loop: float32, or float64 for a float64 layer."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    @property
    def inexact_gradients(self) -> tuple[str, ...]:
        # Only the user knows how many updates suffice, and whether the update contracts.
        return (self.gradient,) if self.gradient in ("truncated", "implicit") else ()

    def build(self, input_shape: Any) -> None:
        inputs = map_shapes(
            lambda shape: keras.KerasTensor((None, *shape[1:]), self.compute_dtype), input_shape
        )
        self._input_specs = keras.tree.flatten(inputs)
        state = self._initial_spec(inputs)
        states = len(keras.tree.flatten(state))
        with_inputs = takes_inputs(self.update, states)
        copies = [self.update]
        if not self.tied:
            copies += [copy_layer(self.update, k) for k in range(1, self._weights_for)]
        self.update_copies = copies[1:]
        arguments = IteratedCall.arguments_of(self.update, with_inputs)
        for update in copies:
            new = called_spec("update", update, self.name, *arguments(state, inputs))
            check_spec(new, state, self.name, (self.compute_dtype, _mixed_dtype(update)))
        readout = None
        if self.stop is not None and self.readout is not None:
            readout = called_spec("readout", self.readout, self.name, state)
            self.stop.check_readout(readout, self.name)
        self._output_spec = spec_of_outputs(self.returns, state, readout)
        self._call = IteratedCall(self, copies, arguments, self.stop)
        self.built = True

    def make_initial_state(self, inputs: Any) -> Any:
        """Return x(0) for the inputs, in the state's dtype.

        Args:
            inputs: The inputs of the layer, a tensor or structure of tensors `[N, ...]`.
        """
        if isinstance(self.initial_state, keras.layers.Layer):
            state = self.initial_state(inputs)
        elif self.initial_state == "zeros":
            # 0 times NaN is NaN, so that a sample which is not finite is seen.
            state = 0 * inputs
        else:
            state = inputs
        return keras.tree.map_structure(lambda z: tf.cast(z, self.state_dtype), state)

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        mask: Any = None,
        return_depth: bool = False,
    ) -> Any:
        mask = next((z for z in keras.tree.flatten(mask) if z is not None), None)
        state = self.make_initial_state(inputs)
        max_unroll, threshold = self.depth_variables
        unrolled, states = self._run(state, inputs, mask, bool(training), max_unroll, threshold)
        unrolled = self.as_outputs(unrolled, mask, states)
        return unrolled if return_depth else unrolled.state

    def run_to(
        self,
        inputs: Any,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None = None,
        **options: Any,
    ) -> Unrolled:
        mask = mask_of(inputs) if options.get("mask") is None else options["mask"]
        inputs = keras.tree.map_structure(lambda z: tf.cast(z, self.compute_dtype), inputs)
        if not self.built:
            self(inputs)
        state = self.make_initial_state(inputs)
        unrolled, states = self._run(state, inputs, mask, False, max_unroll, threshold)
        return self.as_outputs(unrolled, mask, states)

    def _run(
        self,
        state: Any,
        inputs: Any,
        mask: Any,
        training: bool,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None,
    ) -> tuple[Unrolled, Any]:
        """Return the result of the loop; the threshold is not read at a fixed depth."""
        threshold = None if self.threshold is None else threshold
        settling = self.settling if training else 0.0
        return self._call.run(state, inputs, mask, training, max_unroll, threshold, settling)

    def bind(
        self, state: Any, inputs: Any, mask: tf.Tensor | None = None
    ) -> tuple[BoundUpdate, UnrollingRule]:
        """Return the update in evaluation with its tensors, and the rule of the loops.

        Args:
            state: x(0), in the state's dtype.
            inputs: The inputs of the layer.
            mask: bool `[N, positions]`, or None.
        """
        return self._call.bind(state, inputs, mask)

    @property
    def cannot_stream(self) -> str | None:
        if "states" in self.returns:
            return "it returns the states after all updates"
        return super().cannot_stream

    def as_outputs(
        self, unrolled: Unrolled, mask: tf.Tensor | None = None, states: Any = None
    ) -> Unrolled:
        unrolled = super().as_outputs(unrolled, mask)
        if not self.returns:
            return unrolled
        state = unrolled.state
        outputs = {"state": state}
        if "readout" in self.returns:
            seen = mask is not None and self.readout.supports_masking
            outputs["readout"] = self.readout(with_mask(state, mask) if seen else state)
        if "states" in self.returns:
            outputs["states"] = keras.tree.map_structure(
                lambda z: tf.cast(z, self.compute_dtype), states
            )
        return unrolled._replace(state=outputs)

    def _initial_spec(self, inputs: Any) -> Any:
        """Return the state as symbolic tensors in the state's dtype, for symbolic inputs."""
        state = inputs
        if isinstance(self.initial_state, keras.layers.Layer):
            state = output_spec(self.initial_state, inputs)
        elif not isinstance(inputs, keras.KerasTensor):
            raise ValueError(
                f'`initial_state="{self.initial_state}"` needs inputs of one tensor, which has the '
                f"shape of the state; give a layer from the inputs to the state in {self.name!r}. "
                f"Received: inputs {inputs}"
            )
        return keras.tree.map_structure(
            lambda z: keras.KerasTensor(z.shape, self.state_dtype), state
        )

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask for each output that has its positions, a structure like the outputs.

        Args:
            inputs: The inputs of the layer, or their specs.
            previous_mask: The mask of the inputs, bool `[N, positions]`, or None.
        """
        given = zip(keras.tree.flatten(previous_mask), self._input_specs, strict=False)
        found = [(mask, spec) for mask, spec in given if mask is not None]
        if not found:
            return None
        mask, spec = found[0]
        # The sizes of this call can be others than those at which the layer was built.
        positions = keras.KerasTensor(spec.shape[: len(mask.shape)])
        masks = keras.tree.map_structure(
            lambda z: mask if has_positions(z, positions) else None, self._output_spec
        )
        if "states" in self.returns:
            # Their second axis is that of the updates.
            masks["states"] = keras.tree.map_structure(lambda z: None, masks["states"])
        return masks

    def compute_output_shape(self, input_shape: Any) -> Any:
        if not self.built:
            self.build(input_shape)
        return keras.tree.map_structure(lambda z: z.shape, self._output_spec)

    def compute_output_spec(
        self,
        inputs: Any,
        training: bool | None = None,
        mask: Any = None,
        return_depth: bool = False,
    ) -> Any:
        # Given explicitly, since Keras would trace the whole loop to infer it.
        outputs = keras.tree.map_structure(
            lambda shape: keras.KerasTensor(shape.shape, self.compute_dtype), self._output_spec
        )
        if not return_depth:
            return outputs
        counts = [keras.KerasTensor((None,), dtype="int32") for _ in range(2)]
        return Unrolled(outputs, *counts)

    def get_config(self) -> dict[str, Any]:
        start = self.initial_state
        return {
            **super().get_config(),
            **self.depth_config(),
            "update": serialize_shared(self.update),
            "stop": None if self.stop is None else keras.saving.serialize_keras_object(self.stop),
            "min_unroll": self.min_unroll,
            "initial_state": start if isinstance(start, str) else serialize_shared(start),
            "gradient": self.gradient,
            "truncate": self.truncate,
            "settling": self.settling,
            "returns": list(self.returns),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Iterate":
        config = dict(config)
        threshold = config.pop("threshold", None)
        for name in ("update", "stop", "initial_state"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        # `set_depth` may have set a number below those that the layer was made with.
        limit = config["max_unroll"]
        least = max(config["min_unroll"], config["truncate"] or 1)
        layer = cls(**{**config, "max_unroll": max(limit, least)})
        layer.max_unroll = limit
        # The rule keeps the threshold that it was made with.
        layer.threshold = threshold
        return layer


def _mixed_dtype(layer: keras.layers.Layer) -> str | None:
    """Return the dtype of the computations of a layer in mixed precision; None for others."""
    policy = layer.dtype_policy
    return policy.compute_dtype if policy.compute_dtype != policy.variable_dtype else None
