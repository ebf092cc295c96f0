"""A Keras layer as an update of the loops: a pure function of its state and of its weights."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.private_keras import build_for, set_mask
from keras_iterconv.unrolling import Update
from keras_iterconv.unrolling.samples import State


class _Call(keras.layers.Layer):
    """A call of a layer, with a list of its arguments.

    Keras gives the `training` of this call also to layers inside a layer that has no such argument.
    """

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(dtype=layer.dtype_policy, autocast=False, name=layer.name)
        if isinstance(layer, keras.Model):
            # A model passes masks on to its layers; Keras would warn that it does not.
            layer.supports_masking = True
        self.layer = layer
        self.supports_masking = True

    def call(self, arguments: Any, training: bool | None = None) -> Any:
        return self.layer(*arguments)


class _CallWithTraining(_Call):
    """A call of a `_Call`, since `stateless_call` is none: it runs the function `call` alone."""

    def call(self, arguments: Any, training: bool | None = None) -> Any:
        return self.layer(arguments, training=training)


def output_spec(layer: keras.layers.Layer, *args: Any) -> Any:
    """Return the outputs of a layer for symbolic tensors, and build it if it is not built.

    The layer does not become part of a graph of layers, as it would by a call.
    """
    build_for(layer, *args)
    return _Call(layer)(args)


class PureLayer:
    """A built Keras layer as a function of its arguments and its variables.

    Args:
        layer: The layer.

    Attributes:
        variables: Its variables now: the trainable ones, then the others.
        generators: The indices of those that are states of random generators.
    """

    def __init__(self, layer: keras.layers.Layer):
        inner = _Call(layer)
        self.layer, self._call = layer, _CallWithTraining(inner)
        inner.built = self._call.built = True
        self.trainable = list(layer.trainable_variables)
        self.variables = [*self.trainable, *layer.non_trainable_variables]
        weights = {id(weight) for weight in layer.weights}
        # Keras counts the states of random generators among the variables, not the weights.
        self.generators = [
            index for index, each in enumerate(self.variables) if id(each) not in weights
        ]

    def tensors(self, training: bool) -> list[tf.Tensor]:
        """Return the values of the variables for one loop.

        In training the random generators advance, once for the whole loop.
        """
        values = [variable.value for variable in self.variables]
        for index in self.generators if training else ():
            values[index] = tf.identity(values[index])
            with tf.control_dependencies([values[index]]):
                self.variables[index].assign(tf.add(values[index], [0, 1]))
        return [tf.convert_to_tensor(value) for value in values]

    def at_update(self, tensors: Sequence[tf.Tensor], k: tf.Tensor) -> list[tf.Tensor]:
        """Return the tensors with other random seeds for each update, a function of seed and k."""
        tensors = list(tensors)
        for index in self.generators:
            seed = tensors[index]
            tensors[index] = tf.random.experimental.stateless_fold_in(seed, tf.cast(k, seed.dtype))
        return tensors

    def __call__(self, tensors: Sequence[tf.Tensor], *args: Any, training: bool = False) -> Any:
        """Return the outputs of a call, and the values of all variables after it."""
        count = len(self.trainable)
        outputs, others = self._call.stateless_call(
            tensors[:count], tensors[count:], args, training=training
        )
        return outputs, [*tensors[:count], *others]

    def changed_in_training(self, *args: Any) -> list[int]:
        """Return the indices of the variables that a call in training changes, generators aside.

        Args:
            *args: Arguments of the call, tensors or structures of them; only their shapes count.

        Raises:
            ValueError: The outputs depend on what the call changes. The updates of a loop could
                then not be differentiated one by one.
        """
        changed: list[int] = []
        specs = tf.nest.map_structure(lambda z: tf.TensorSpec(z.shape, z.dtype), args)
        variables = [tf.TensorSpec(each.shape, each.dtype) for each in self.variables]

        def call(tensors, args):
            with tf.GradientTape() as tape:
                tape.watch([z for z in tensors if z.dtype.is_floating])
                outputs, after = self(tensors, *args, training=True)
            changed[:] = [
                index
                for index, (old, new) in enumerate(zip(tensors, after, strict=True))
                if new is not old and index not in self.generators
            ]
            found = tape.gradient(outputs, [tensors[index] for index in changed])
            wrong = [i for i, g in zip(changed, found, strict=True) if g is not None]
            if wrong:
                paths = ", ".join(self.variables[index].path for index in wrong)
                raise ValueError(
                    f"A call of {self.layer.name!r} in training changes variables on which its "
                    "outputs depend; an update must not. Make them part of the state, or leave "
                    f"them out. Received: {paths}"
                )

        tf.function(call, autograph=False).get_concrete_function(variables, specs)
        return changed


@dataclasses.dataclass(frozen=True, eq=False)
class LayerUpdate(Update):
    """The update that calls a Keras layer on the state.

    Its weights are `[variables of the update, variables of the readout]`, of an untied update in
    stacks `[max_unroll, ...]`; its drives the inputs, flat, and the mask where there is one. It is
    equal to itself alone: a layer can change between two calls.

    Attributes:
        layer: The layer; of an untied update any of the layers, which are alike.
        arguments: A function from `(state, inputs)` to the arguments of the layer.
        inputs_like: The structure of the inputs.
        masked: Whether the last drive is a mask, float `[N, positions, ...]`: 0 where the state
            stays as it was.
        training: Whether the layer runs in training.
        changed: The indices of the variables that it changes in training; they are carried.
    """

    layer: PureLayer
    arguments: Callable[[State, Any], Sequence]
    inputs_like: Any
    masked: bool
    training: bool
    tied: bool = True
    changed: tuple[int, ...] = ()
    whole_batch: bool = False
    couples_samples: bool = False

    def step(self, state: State, k: tf.Tensor, weights: tuple, drives: tuple) -> tuple:
        new, change, _ = self._call(state, k, weights, drives)
        return new, change

    def step_carrying(
        self, state: State, k: tf.Tensor, weights: tuple, drives: tuple, carried: tuple
    ) -> tuple:
        tensors = list(weights)
        for index, value in zip(self.changed, carried, strict=True):
            tensors[index] = value
        new, change, after = self._call(state, k, tuple(tensors), drives)
        values = [after[index] for index in self.changed]
        if not self.tied:
            values = [
                tf.tensor_scatter_nd_update(stack, [[k]], value[tf.newaxis])
                for stack, value in zip(carried, values, strict=True)
            ]
        return new, change, tuple(values)

    def _call(self, state, k, weights, drives):
        """Return `(new state, change, variables after the call)`."""
        tensors = weights[: len(self.layer.variables)]
        if not self.tied:
            tensors = [tf.gather(stack, k) for stack in tensors]
        tensors = self.layer.at_update(tensors, k)
        mask = drives[-1] > 0 if self.masked else None
        inputs = tf.nest.pack_sequence_as(
            self.inputs_like, drives[:-1] if self.masked else list(drives)
        )
        if mask is not None and self.layer.layer.supports_masking:
            # On both: Keras drops the mask where layers join tensors with and without one.
            state, inputs = with_mask(state, mask), with_mask(inputs, mask)
        arguments = self.arguments(state, inputs)
        new, after = self.layer(tensors, *arguments, training=self.training)
        new = tf.nest.map_structure(lambda z, x: tf.cast(z, x.dtype), new, state)
        if mask is not None:
            new = tf.nest.map_structure(lambda z, x: where_masked(mask, z, x), new, state)
        return new, tf.nest.map_structure(tf.subtract, new, state), after


def with_mask(structure: State, mask: tf.Tensor) -> State:
    """Return a structure whose tensors carry a Keras mask, where they have its positions."""

    def carry(z):
        z = tf.identity(z)
        if has_positions(z, mask):
            set_mask(z, mask)
        return z

    return tf.nest.map_structure(carry, structure)


def where_masked(mask: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """Return the new values at the positions of a mask, and the old ones elsewhere."""
    if not has_positions(new, mask):
        return new
    missing = new.shape.rank - mask.shape.rank
    return tf.where(tf.reshape(mask, [*tf.unstack(tf.shape(mask)), *[1] * missing]), new, old)


def has_positions(z: Any, mask: Any) -> bool:
    """Return whether a tensor has the positions of a mask, bool `[N, positions, ...]`.

    A tensor of the mask's rank, such as `[N, features]`, has none, whatever its sizes.

    Args:
        z: A tensor, symbolic or not.
        mask: The mask, or a tensor of its shape.
    """
    shape, positions = tf.TensorShape(z.shape), tf.TensorShape(mask.shape)[1:]
    rank = 1 + len(positions)
    return len(shape) > rank and shape[1:rank].is_compatible_with(positions)


def takes_inputs(layer: keras.layers.Layer, states: int) -> bool:
    """Return whether an update is called with the inputs after the state.

    Args:
        layer: A functional model of `[*states, inputs]` or `[*states]`, or any layer whose `call`
            takes the state, and the inputs or not.
        states: The number of tensors in the state.

    Raises:
        ValueError: Its call takes another number of arguments.
    """
    if is_functional(layer):
        found = len(layer.inputs)
        if found in (states, states + 1):
            return found > states
        raise ValueError(
            f"`update` must be a model of the state, {states} tensor(s), or of the state and one "
            f"input. Received: update={layer.name!r} of {found} inputs. For a state of several "
            "tensors `initial_state` must be a layer that returns them"
        )
    positional = [
        parameter
        for parameter in inspect.signature(layer.call).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.name not in ("training", "mask")
    ]
    parameters = [each for each in positional if each.default is each.empty]
    if len(parameters) == 1:
        # As in `call(state, inputs=None)`.
        parameters += [each for each in positional[1:2] if each.name == "inputs"]
    if len(parameters) not in (1, 2):
        names = ", ".join(parameter.name for parameter in parameters)
        raise ValueError(
            "`update` must be a layer whose call takes `(state)` or `(state, inputs)`; write a "
            f"small layer around it. Received: update={layer.name!r}, whose call takes ({names})"
        )
    return len(parameters) == 2


def is_functional(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a functional model, which takes a list of tensors."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))
