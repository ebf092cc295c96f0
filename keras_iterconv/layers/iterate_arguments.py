"""Checks of the arguments and of the parts of `Iterate`."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_iterconv._support.checks import check_choice, check_positive_int


def map_shapes(function: Any, shapes: Any) -> Any:
    """Apply a function to each shape of a structure of shapes, which are tuples themselves."""
    if isinstance(shapes, dict):
        return {name: map_shapes(function, shape) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return function(tuple(shapes))
    return type(shapes)(map_shapes(function, shape) for shape in shapes)


def check_spec(new: Any, state: Any, name: str) -> None:
    """Raise `ValueError` where the update's outputs are no state like the one it gets."""

    def describe(structure):
        return keras.tree.map_structure(lambda z: tuple(z.shape), structure)

    try:
        keras.tree.assert_same_structure(new, state)
        pairs = zip(keras.tree.flatten(new), keras.tree.flatten(state), strict=True)
        fits = all(
            tuple(z.shape) == tuple(x.shape) and keras.backend.is_float_dtype(z.dtype)
            for z, x in pairs
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"`update` of {name!r} must return the structure and shapes of its state, "
            f"{describe(state)}, as floating-point numbers. Received: {describe(new)}"
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
