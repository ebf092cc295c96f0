"""Checks of arguments, with common error messages."""

import difflib
import numbers
import operator
from collections.abc import Iterable
from typing import Any

import keras

# The largest int32, the type of depths and counters.
LARGEST_INT = 2**31 - 1
# The smallest normal float32; smaller numbers may be flushed to 0.
SMALLEST = 2.0**-126
# The largest finite float32.
LARGEST = 2.0**128 - 2.0**104


def check_positive_int(name: str, value: Any) -> int:
    """Return `value` as an int where it is an integer from 1 to 2**31 - 1.

    Raises:
        ValueError: It is not.
    """
    try:
        whole = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    if whole > LARGEST_INT:
        raise ValueError(f"`{name}` must be at most {LARGEST_INT}. Received: {name}={value!r}")
    return whole


def check_seed(seed: Any) -> int:
    """Return `seed` as an int where it is an integer of at least 0.

    Raises:
        ValueError: It is not.
    """
    try:
        whole = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ValueError(f"`seed` must be an integer of at least 0. Received: seed={seed!r}")
    return whole


def check_between(
    name: str, value: Any, low: float, high: float, *, closed: bool = False, least: float = SMALLEST
) -> float:
    """Return `value` as a float where it lies in (low, high), or in (low, high] where `closed`.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        low: Lower end of the interval, which is not included.
        high: Upper end of the interval.
        closed: Whether the upper end is included.
        least: Smallest value if `low` is 0: smaller numbers are 0 in float32.

    Raises:
        ValueError: It does not.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not (low < value < high or (closed and value == high)):
        bracket = "]" if closed else ")"
        raise ValueError(
            f"`{name}` must lie in ({low:g}, {high:g}{bracket}. Received: {name}={value!r}"
        )
    if low == 0 and value < least:
        raise ValueError(
            f"`{name}` must be at least {least:.3g}, for it is 0 in float32 otherwise. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def check_shift(shift: Any, bound: Any) -> tuple[float, float | None]:
    """Return epsilon of Eq. 13 and delta of Algorithm 1 (or None) as floats, checked."""
    shift = check_between("shift", shift, 0, 0.5)
    if bound is not None:
        bound = check_between("bound", bound, 0, 2 * (1 - shift), closed=True)
    return shift, bound


def check_margins(margin: Any, center_margin: Any) -> tuple[float, float]:
    """Return epsilon and eta of Algorithm 2, after checking 0 < margin < center_margin < 1."""
    center_margin = check_between("center_margin", center_margin, 0, 1)
    margin = check_between("margin", margin, 0, 1)
    if not margin < center_margin:
        raise ValueError(
            "`margin` must be smaller than `center_margin`, or nothing is left for the taps "
            f"around the centre. Received: margin={margin}, center_margin={center_margin}"
        )
    return margin, center_margin


def check_channels_last() -> None:
    """Raise `ValueError` where Keras's image format puts the channels first.

    Blocks and nets read images as `[N, height, width, channels]` whatever the setting of Keras. A
    Keras layer in the same net would read them in the other order, without an error.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "keras_iterconv takes images as [N, height, width, channels]; call "
            '`keras.config.set_image_data_format("channels_last")` before you build or load a net. '
            f"Received: image_data_format={keras.config.image_data_format()!r}"
        )


def check_jit_compile(jit_compile: Any, layers: Iterable[keras.layers.Layer]) -> None:
    """Raise `ValueError` where XLA is asked for and blocks are without it.

    Keras would warn, naming neither the blocks nor the reason, and go on without XLA.

    Args:
        jit_compile: The argument of `compile`; `"auto"` never asks for what a layer is without.
        layers: The blocks of the model.
    """
    if jit_compile is not True:
        return
    names = [repr(layer.name) for layer in layers if not layer.supports_jit]
    if names:
        raise ValueError(
            f'`jit_compile` must be "auto" or False for a model with {", ".join(names[:8])}: XLA '
            "cannot compile the gradients of loops whose length is not known, and computes such "
            "blocks many times slower on a CPU. Received: jit_compile=True"
        )


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return `value` where it is one of the `known` strings.

    Raises:
        ValueError: It is not; the message offers the nearest.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(unknown_name(name, value, known))
    return value


def unknown_name(argument: str, name: str, known: Iterable[str]) -> str:
    """Return the error message for a name that is not one of `known`, with the most similar name.

    Args:
        argument: Name of the argument.
        name: Value of the argument.
        known: Valid values.

    Returns:
        The error message.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"`{argument}` must be one of {', '.join(known)}.{hint} Received: {argument}={name!r}"
