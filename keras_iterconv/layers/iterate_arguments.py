"""Checks of the arguments and of the parts of `Iterate`."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from keras_iterconv._support.checks import check_choice, check_positive_int
from keras_iterconv.layers.layer_update import output_spec

# Most characters of another library's message in ours.
LONGEST_REASON = 300


def map_shapes(function: Any, shapes: Any) -> Any:
    """Apply a function to each shape of a structure of shapes, which are tuples themselves."""
    if isinstance(shapes, dict):
        return {name: map_shapes(function, shape) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return function(tuple(shapes))
    return type(shapes)(map_shapes(function, shape) for shape in shapes)


def called_spec(role: str, layer: keras.layers.Layer, name: str, *args: Any) -> Any:
    """Return the symbolic outputs of a part of `Iterate` for symbolic arguments.

    Args:
        role: What the layer is, for the message.
        layer: The layer.
        name: The name of the `Iterate`.
        *args: The arguments, structures of symbolic tensors.

    Raises:
        ValueError: The layer cannot be called on them.
    """
    try:
        return output_spec(layer, *args)
    # A user's layer may raise anything.
    except Exception as error:
        shapes = ", ".join(str(_shapes(each)) for each in args)
        # Keras writes some messages in bold.
        plain = re.sub("\x1b\\[[0-9;]*m", "", str(error))
        reason = " ".join(plain.split())[:LONGEST_REASON]
        raise ValueError(
            f"The {role} of {name!r}, {layer.name!r}, cannot be called on its arguments of the "
            f"shapes {shapes}; a state of several tensors needs a layer as `initial_state`. "
            f"Received: {type(error).__name__}: {reason}"
        ) from error


def _shapes(structure: Any) -> Any:
    return keras.tree.map_structure(lambda z: tuple(z.shape), structure)


def check_spec(new: Any, state: Any, name: str, dtypes: Sequence[str | None]) -> None:
    """Raise `ValueError` where the update's outputs are no state like the one it gets.

    Args:
        new: The outputs, a structure of symbolic tensors.
        state: The state.
        name: The name of the layer.
        dtypes: The dtypes that the outputs may have instead of that of the state: those of the
            computations of the layer, and of an update in mixed precision.
    """

    def describe(structure):
        return keras.tree.map_structure(lambda z: (*z.shape, z.dtype), structure)

    try:
        keras.tree.assert_same_structure(new, state)
        pairs = zip(keras.tree.flatten(new), keras.tree.flatten(state), strict=True)
        fits = all(
            tuple(z.shape) == tuple(x.shape) and z.dtype in (x.dtype, *dtypes) for z, x in pairs
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"`update` of {name!r} must return the structure, shapes and dtype of its state, "
            f"{describe(state)}. Received: {describe(new)}"
        )


def check_returns(returns: Sequence[str], readout: Any) -> tuple[str, ...]:
    """Return the names of what is returned beside the state, checked."""
    if isinstance(returns, str):
        raise ValueError(f"`returns` must be a tuple of names. Received: returns={returns!r}")
    for name in returns:
        check_choice("returns", name, ("readout", "states"))
    if "readout" in returns and readout is None:
        raise ValueError(
            '`returns=("readout",)` needs a stopping rule with a readout. '
            f"Received: returns={tuple(returns)!r}"
        )
    return tuple(returns)


def check_truncate(truncate: int | None, gradient: str, max_unroll: int) -> int | None:
    """Return `truncate` where it is a number of updates for the gradient "truncated", or None."""
    if (gradient == "truncated") != (truncate is not None):
        raise ValueError(
            '`truncate` must be a number of updates with `gradient="truncated"`, and None with '
            f"another mode. Received: gradient={gradient!r}, truncate={truncate!r}"
        )
    if truncate is None:
        return None
    truncate = check_positive_int("truncate", truncate)
    if truncate > max_unroll:
        raise ValueError(
            f"`truncate` must be at most `max_unroll`, {max_unroll}. Received: truncate={truncate}"
        )
    return truncate


def spec_of_outputs(returns: Sequence[str], state: Any, readout: Any) -> Any:
    """Return the outputs of the layer as symbolic tensors; their dtypes are not meant.

    Args:
        returns: The argument `returns`.
        state: The state as symbolic tensors.
        readout: The outputs of the rule's readout as symbolic tensors.
    """
    if not returns:
        return state
    outputs = {"state": state}
    if "readout" in returns:
        outputs["readout"] = readout
    if "states" in returns:
        # `max_unroll` can change.
        outputs["states"] = keras.tree.map_structure(
            lambda z: keras.KerasTensor((z.shape[0], None, *z.shape[1:])), state
        )
    return outputs
