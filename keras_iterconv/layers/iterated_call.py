"""One call of `Iterate`: from Keras layers and their variables to the loops and back."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import tensorflow as tf

from keras_iterconv.layers.layer_update import (
    LayerUpdate,
    PureLayer,
    has_positions,
    is_functional,
    where_masked,
    with_mask,
)
from keras_iterconv.layers.ponder_update import PonderUpdate
from keras_iterconv.stop import Halting, StoppingRule, UpdateNorm
from keras_iterconv.unrolling import (
    Unrolled,
    settling_term,
    stopping,
    unroll_adaptive,
    unroll_fixed,
    unroll_states,
    unroll_whole_batch,
    with_last_states,
)
from keras_iterconv.unrolling.gradients import MODES, GradientMode
from keras_iterconv.unrolling.gradients.fixed_point import fixed_point_mode
from keras_iterconv.unrolling.gradients.truncated import truncated_mode
from keras_iterconv.unrolling.parts import in_parts
from keras_iterconv.unrolling.settling import LastStates, RuleOfX, mean_of_finite
from keras_iterconv.unrolling.update import BoundUpdate


class IteratedCall:
    """What the calls of an `Iterate` layer share.

    Args:
        layer: The layer; its `min_unroll`, `gradient` and `truncate` are read at each call.
        updates: The layers of the update: one, or one for each untied update.
        arguments: A function from `(state, inputs)` to the arguments of the update.
        stop: The stopping rule, or None.
    """

    def __init__(
        self,
        layer: Any,
        updates: Sequence[keras.layers.Layer],
        arguments: Callable[[Any, Any], Sequence],
        stop: StoppingRule | None,
    ):
        self.layer, self.updates, self.arguments = layer, updates, arguments
        self.stop = UpdateNorm(1.0) if stop is None else stop

    @staticmethod
    def arguments_of(update: keras.layers.Layer, with_inputs: bool) -> Callable:
        """Return a function from `(state, inputs)` to the arguments of the update."""
        if is_functional(update):

            def flat(state, inputs):
                states = keras.tree.flatten(state)
                found = [*states, inputs] if with_inputs else states
                # A model of one input takes no list.
                return (found if len(found) > 1 else found[0],)

            return flat
        if with_inputs:
            return lambda state, inputs: (state, inputs)
        return lambda state, inputs: (state,)

    def run(
        self,
        state: Any,
        inputs: Any,
        mask: tf.Tensor | None,
        training: bool,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None,
        settling: float = 0.0,
    ) -> tuple[Unrolled, Any]:
        """Return the result of the loop and, if they are returned, the states; store changes.

        Args:
            state: x(0), in the state's dtype.
            inputs: The inputs of the layer.
            mask: bool `[N, positions]`, or None.
            training: Whether the layers run in training, and a backward pass will follow.
            max_unroll: The number of updates, or the largest number; an int or an int32 scalar.
            threshold: The stopping threshold, a scalar; None for exactly `max_unroll` updates.
            settling: The weight of the loss that makes the state settle; 0 for none.
        """
        mask = None if mask is None else tf.cast(mask, tf.bool)
        updates, readout = self._pure_layers()
        bound = self._bind(updates, readout, state, inputs, mask, training)
        max_unroll, gradient = tf.convert_to_tensor(max_unroll), self._gradient_mode(training)
        ponders = training and threshold is not None and isinstance(self.stop, Halting)
        masked = mask is not None and any(has_positions(z, mask) for z in tf.nest.flatten(state))
        self._check_gradient(
            gradient.name, bound.update, masked, stops=threshold is not None and not ponders
        )
        if threshold is None:
            options: dict[str, Any] = {}
        elif training and isinstance(self.stop, Halting):
            return self._run_pondering(
                self.stop, updates, readout, bound, state, max_unroll, gradient
            )
        else:
            threshold = tf.convert_to_tensor(threshold)
            rule = self._rule(readout, mask is not None)
            options = {"rule": rule, "min_unroll": self.layer.min_unroll}
        update = cast(LayerUpdate, bound.update)
        if "states" in self.layer.returns:
            unrolled, carried, states = unroll_states(
                bound, state, max_unroll, threshold, **options
            )
            _store(updates, update, carried)
            if settling:
                self._add_settling(settling, _last_states(state, states, unrolled.depth), mask)
            return unrolled, states
        if settling:
            bound, state = with_last_states(bound, state)
            if "rule" in options:
                options["rule"] = RuleOfX(options["rule"])
        if update.whole_batch:
            unrolled, carried = unroll_whole_batch(
                bound, state, max_unroll, threshold, gradient, **options
            )
            _store(updates, update, carried)
        elif threshold is None:
            unrolled = in_parts(
                lambda bound, x: unroll_fixed(bound, x, max_unroll, gradient), bound, state
            )
        else:
            unrolled = in_parts(
                lambda bound, x: unroll_adaptive(
                    bound, x, max_unroll, threshold, gradient, **options
                ),
                bound,
                state,
            )
        if settling:
            self._add_settling(settling, unrolled.state, mask)
            unrolled = unrolled._replace(state=unrolled.state.x)
        return unrolled, None

    def _add_settling(self, settling: float, last: LastStates, mask: tf.Tensor | None) -> None:
        """Add the loss of the last update, in which masked positions do not count."""
        last = last if mask is None else _without_masked(last, mask)
        # In the state's dtype: Keras adds the losses up without a cast.
        self.layer.add_loss(settling * settling_term(last))

    def bind(
        self, state: Any, inputs: Any, mask: tf.Tensor | None
    ) -> tuple[BoundUpdate, stopping.StoppingRule]:
        """Return the update in evaluation with its tensors, and the rule of the loops."""
        updates, readout = self._pure_layers()
        bound = self._bind(updates, readout, state, inputs, mask, False)
        return bound, self._rule(readout, mask is not None)

    def _rule(self, readout: PureLayer | None, masked: bool) -> stopping.StoppingRule:
        """Return the stopping rule of the loops, which sees no masked position."""
        rule = self.stop.as_description(_reader(readout, masked))
        if masked and isinstance(rule, stopping.RelativeUpdateNorm):
            return dataclasses.replace(
                rule, visible=lambda state, drives: _without_masked(state, drives[-1] > 0)
            )
        return rule

    def _check_gradient(self, gradient: str, update: Any, masked: bool, stops: bool) -> None:
        """Raise `ValueError` where the gradient mode would not be what it is said to be.

        Args:
            gradient: The name of the mode.
            update: The update.
            masked: Whether a mask keeps positions of the state.
            stops: Whether samples can stop at different updates.
        """
        name = self.layer.name
        if gradient == "implicit" and update.whole_batch:
            raise ValueError(
                f'`gradient="implicit"` of {name!r} needs an update without random numbers and '
                "batch statistics in training, which have no fixed point. "
                f"Received: update={update.layer.layer.name!r}"
            )
        if gradient == "implicit" and masked:
            # The update of a masked position is the identity.
            raise ValueError(
                f'`gradient="implicit"` of {name!r} needs inputs without a mask, since masked '
                'positions keep every state. Use "recompute", or remove the mask'
            )
        if gradient == "truncated" and update.couples_samples and stops:
            raise ValueError(
                f'`gradient="truncated"` of {name!r} needs `stop=None` where the update changes '
                "variables in training, such as statistics of the batch: samples that stop apart "
                "have different last updates. Use another normalisation, or "
                f'`gradient="recompute"`. Received: update={update.layer.layer.name!r}'
            )

    def _pure_layers(self) -> tuple[list[PureLayer], PureLayer | None]:
        readout = self.stop.readout
        updates = [PureLayer(layer) for layer in self.updates]
        return updates, None if readout is None else PureLayer(readout)

    def _bind(
        self,
        updates: Sequence[PureLayer],
        readout: PureLayer | None,
        state: Any,
        inputs: Any,
        mask: tf.Tensor | None,
        training: bool,
    ) -> BoundUpdate:
        """Return the update with its tensors."""
        stacks = [each.tensors(training) for each in updates]
        tied = len(stacks) == 1
        tensors = stacks[0] if tied else [tf.stack(z) for z in zip(*stacks, strict=True)]
        changed = updates[0].changed_in_training(*self.arguments(state, inputs)) if training else []
        update = LayerUpdate(
            updates[0],
            self.arguments,
            keras.tree.map_structure(lambda z: None, inputs),
            mask is not None,
            training,
            tied,
            tuple(changed),
            whole_batch=bool(training and (changed or updates[0].generators)),
            couples_samples=bool(changed),
        )
        weights = tensors if readout is None else [*tensors, *readout.tensors(False)]
        drives = [tf.convert_to_tensor(z) for z in keras.tree.flatten(inputs)]
        if mask is not None:
            drives.append(tf.cast(mask, self.layer.state_dtype))
        return update.bind(tuple(weights), tuple(drives))._replace(
            carried=tuple(tensors[index] for index in changed)
        )

    def _gradient_mode(self, training: bool) -> GradientMode:
        # Outside training a backward pass is rare, so that no tensors are kept for it.
        name = self.layer.gradient if training else "recompute"
        if name == "truncated":
            return truncated_mode(self.layer.truncate)
        return fixed_point_mode(self.layer.name) if name == "implicit" else MODES[name]

    def _run_pondering(
        self,
        stop: Halting,
        updates: Sequence[PureLayer],
        readout: PureLayer | None,
        bound: BoundUpdate,
        state: Any,
        max_unroll: tf.Tensor,
        gradient: GradientMode,
    ) -> tuple[Unrolled, Any]:
        """Return the mean of the states by the probability of stopping, and add its loss."""
        inner = cast(LayerUpdate, bound.update)
        logit = stop.logit(_reader(readout, inner.masked))
        ponder = PonderUpdate(inner, logit, self.layer.min_unroll)
        start, bound, states = ponder.begin(state), bound._replace(update=ponder), None
        if "states" in self.layer.returns:
            unrolled, carried, states = unroll_states(bound, start, max_unroll, None)
            _store(updates, inner, carried)
            states = states["x"]
        elif ponder.whole_batch:
            unrolled, carried = unroll_whole_batch(bound, start, max_unroll, None, gradient)
            _store(updates, inner, carried)
        else:
            unrolled = unroll_fixed(bound, start, max_unroll, gradient)
        if stop.ponder:
            self.layer.add_loss(stop.ponder * mean_of_finite(unrolled.state["expected"]))
        return unrolled._replace(state=ponder.end(unrolled.state)), states


def _last_states(start: Any, states: Any, depth: tf.Tensor) -> LastStates:
    """Return each sample's last state and the one before it, from all states.

    Args:
        start: x(0), a structure of tensors `[N, ...]`.
        states: x(1) to x(max_unroll), `[N, max_unroll, ...]` each.
        depth: The number of updates of each sample, int32 `[N]`.
    """
    every = tf.nest.map_structure(
        lambda x, later: tf.concat([x[:, tf.newaxis], later], axis=1), start, states
    )

    def at(k):
        return tf.nest.map_structure(lambda z: tf.gather(z, k, batch_dims=1), every)

    # An empty batch makes no update.
    return LastStates(at(depth), at(tf.maximum(depth - 1, 0)))


def _without_masked(structure: Any, mask: tf.Tensor) -> Any:
    """Return a structure with zeros at the positions of a mask."""
    return tf.nest.map_structure(lambda z: where_masked(mask, z, tf.zeros_like(z)), structure)


def _store(updates: Sequence[PureLayer], update: LayerUpdate, carried: tuple) -> None:
    """Assign what the updates of a loop changed to the variables."""
    for index, value in zip(update.changed, carried, strict=True):
        for k, each in enumerate(updates):
            each.variables[index].assign(value if update.tied else value[k])


def _reader(readout: PureLayer | None, masked: bool) -> Callable:
    """Return a function from `(state, weights, drives)` to the outputs of a readout, or None.

    Its outputs at masked positions are zero, so that no rule sees them change.
    """

    def read(state, weights, drives):
        if readout is None:
            return None
        mask = drives[-1] > 0 if masked else None
        if mask is not None and readout.layer.supports_masking:
            state = with_mask(state, mask)
        tensors = weights[len(weights) - len(readout.variables) :]
        outputs, _ = readout(tensors, state)
        if mask is None:
            return outputs
        return _without_masked(outputs, mask)

    return read
