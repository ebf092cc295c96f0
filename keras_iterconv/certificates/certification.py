"""The stability report of a trained net."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.keras_graph import input_specs, output_specs
from keras_iterconv.certificates.ascent import largest_ratio
from keras_iterconv.certificates.network import network_bound, network_norm
from keras_iterconv.certificates.stability_report import StabilityReport
from keras_iterconv.depth.block_calls import (
    UNSEEN,
    BlockCall,
    check_model,
    hidden_layers,
    iteration_calls,
)
from keras_iterconv.layers.protocol import rows_of
from keras_iterconv.layers.rules.rows import BlockRow, FreeRow

PROBES = 8
# Relative excess of a measured ratio over a bound that rounding in float32 may cause.
BOUND_SLACK = 1e-3


def certify(model: keras.Model, probe: np.ndarray | tf.Tensor | None = None) -> StabilityReport:
    """Return whether the papers' guarantee holds for each block, and a Lipschitz bound of the net.

    The report holds for the current weights and moving statistics, in evaluation and in exact
    arithmetic; under mixed precision, for the float32 weights. The model is not changed.

    Args:
        model: Keras model with at least one block of this package, in itself, in a model nested in
            it or in any of its layers, trained or not. A Sequential or subclassed model must be
            built. The net's bound needs a graph: a subclassed model has rows, but no bound.
        probe: Inputs, float `[N, ...]`, from which the search for the largest ratio of output
            distance to input distance starts. None for 8 normal draws with a fixed seed.

    Returns:
        A `StabilityReport`.

    Raises:
        ValueError: `model` is not a Keras model, is not built or has no block; the input of a
            residual block has an unknown height or width; or `probe` does not fit the model's
            input.

    Example:
        >>> block = ki.NAISDense(8, activation="tanh", initial_state="input", name="block")
        >>> model = keras.Sequential([keras.Input((8,)), block, keras.layers.Dense(2)])
        >>> report = ki.certify(model)
        >>> report.holds
        True
        >>> report.blocks[0].guarantee
        'the state converges to one fixed point for each input, from any x(0)'
        >>> report.largest_ratio <= report.bound
        True

    Reference:
        Ciccone et al. 2018, Theorems 1 to 3; Lippl et al. 2024, "Spectral normalization can
        guarantee convergence in residual networks".

    See also:
        `StabilityReport`; `IterativeModel.restore_guarantees`; `spectral`; `projections`.
    """
    check_model(model)
    made = iteration_calls(model)
    rows = _rows_of_calls(model, made)
    if not rows:
        raise ValueError(
            "`model` must hold at least one block of keras_iterconv or of your own, an "
            f"`IterationLayer`; {model.name!r} has none"
        )
    probe = _check_probe(model, probe)
    norm = network_norm(call.block for call in made)
    bound, reason = network_bound(model, norm, rows)
    ratio = None
    if probe is not None:
        ratio = largest_ratio(
            lambda x: keras.tree.flatten(model(x, training=False))[0], probe, norm
        )
    if bound is not None and ratio is not None and ratio > bound * (1 + BOUND_SLACK):
        reason = f"a rule of a block is wrong: two inputs exceed the bound of {bound:.4g}"
        bound = None
    return StabilityReport(
        name=model.name,
        blocks=[row for block in rows.values() for row in block],
        norm=norm,
        bound=bound,
        bound_reason=reason,
        largest_ratio=ratio,
    )


def block_rows_of(model: keras.Model) -> dict[tuple, list[BlockRow]]:
    """Return the rows of each block of a model, by `row_key`, in the order of the calls."""
    return _rows_of_calls(model, iteration_calls(model))


def _rows_of_calls(model: keras.Model, made: Sequence[BlockCall]) -> dict[tuple, list[BlockRow]]:
    rows: dict[tuple, list[BlockRow]] = {}
    for path, block, image in made:
        key = id(block), image
        # A block that is called twice with inputs of one size has one row.
        if key not in rows:
            rows[key] = [
                dataclasses.replace(row, name=path + row.name.removeprefix(block.name))
                for row in rows_of(block, image)
            ]
    for layer, path in hidden_layers(model, made):
        reason = f"it is {UNSEEN}, so that its input is unknown"
        row = FreeRow(name=path, kind=type(layer).__name__, holds=False, reason=reason)
        rows[id(layer), None] = [row]
    return rows


def _check_probe(model: keras.Model, probe: Any) -> tf.Tensor | None:
    """Return the inputs to start from, or None if there are none for this model."""
    inputs, outputs = map(keras.tree.flatten, (input_specs(model), output_specs(model)))
    if len(inputs) != 1 or len(outputs) != 1:
        if probe is not None:
            raise ValueError(
                "`probe` needs a model of one input and one output. Received: a model of "
                f"{len(inputs)} inputs and {len(outputs)} outputs"
            )
        return None
    (entry,) = inputs
    shape = tuple(entry.shape[1:])
    if probe is None:
        if None in shape or not tf.as_dtype(entry.dtype).is_floating:
            return None
        return tf.random.stateless_normal((PROBES, *shape), (0, 0), dtype=entry.dtype)
    probe = np.asarray(probe)
    fits = probe.ndim == len(shape) + 1 and all(
        size in (None, got) for size, got in zip(shape, probe.shape[1:], strict=True)
    )
    if not fits or len(probe) == 0 or not np.issubdtype(probe.dtype, np.number):
        raise ValueError(
            f"`probe` must be a batch of the model's inputs, [N, {', '.join(map(str, shape))}]. "
            f"Received: probe of shape {probe.shape} and type {probe.dtype}"
        )
    if not np.isfinite(probe).all():
        raise ValueError("`probe` must be finite. Received: a probe with NaN or infinity")
    return tf.cast(probe, entry.dtype if tf.as_dtype(entry.dtype).is_floating else "float32")
