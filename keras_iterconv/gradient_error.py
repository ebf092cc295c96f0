"""The errors of a model's gradient modes against its exact gradient, on a given batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.markup import escape
from rich.table import Table

from keras_iterconv._support.text_table import as_text
from keras_iterconv.depth.depth_settings import adjustable_blocks


@dataclasses.dataclass(frozen=True)
class GradientError:
    """The error of one gradient g against the exact gradient e of all trainable weights.

    Attributes:
        gradient: The gradient mode.
        relative_error: ||g - e|| / ||e||.
        cosine: g'e / (||g|| ||e||); 1 where only the norm differs.
        norm_ratio: ||g|| / ||e||.
        worst_variable: The path of the weight whose gradient has the largest relative error.
        worst_relative_error: The relative error of that gradient.
    """

    gradient: str
    relative_error: float
    cosine: float
    norm_ratio: float
    worst_variable: str
    worst_relative_error: float


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """The `GradientError` of each inexact mode that all blocks support; a table as `str`.

    Args:
        rows: One `GradientError` for each mode, in the order of the modes, with the fields
            `gradient`, `relative_error`, `cosine`, `norm_ratio`, `worst_variable` and
            `worst_relative_error`. `report["frozen"]` is the row of a mode.

    Example:
        >>> layer = ki.NAISDense(8, max_unroll=5, step_size=0.5)
        >>> model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> report = ki.gradient_error(model, np.ones((8, 4)), np.zeros((8, 2)))
        >>> [row.gradient for row in report.rows]
        ['frozen']
        >>> report["frozen"].cosine > 0.9
        True

    See also:
        `gradient_error`, which returns it.
    """

    rows: tuple[GradientError, ...]

    def __getitem__(self, gradient: str) -> GradientError:
        return next(row for row in self.rows if row.gradient == gradient)

    def __str__(self) -> str:
        table = Table(title="Gradients against the exact one", title_justify="left")
        titles = ("gradient", "relative error", "cosine", "norm ratio", "worst weight's", "weight")
        for title in titles:
            text = title in ("gradient", "weight")
            table.add_column(title, justify="left" if text else "right")
        for row in self.rows:
            table.add_row(
                row.gradient,
                f"{row.relative_error:.2g}",
                f"{row.cosine:.4f}",
                f"{row.norm_ratio:.3f}",
                f"{row.worst_relative_error:.2g}",
                escape(row.worst_variable),
            )
        return as_text(table)


def gradient_error(
    model: keras.Model, x: np.ndarray | tf.Tensor, y: np.ndarray | tf.Tensor
) -> GradientReport:
    """Compare each gradient mode with the exact gradient of the loss on one batch.

    The loss is the one that the model was compiled with. The model runs in training, with batch
    statistics and dropout. Afterwards its moving statistics and random states are restored, so that
    the model does not change.

    Args:
        model: A compiled functional model with at least one `NAISConv2D`, `NAISDense`, `Iterate` or
            tied `ResidualStage`. An `Iterate` takes part with the mode that it was made with,
            `"truncated"` or `"implicit"`.
        x: The batch's inputs.
        y: The batch's targets.

    Returns:
        A `GradientReport` of the modes that are not exact and that all blocks support.

    Raises:
        ValueError: The model is not functional, not compiled, has no such block, or has blocks that
            share no such mode.

    Example:
        >>> layer = ki.NAISDense(8, max_unroll=25, activation="tanh", step_size=1.0, shift=0.45)
        >>> model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> report = ki.gradient_error(model, np.ones((8, 4)), np.zeros((8, 2)))
        >>> [(row.gradient, row.relative_error < 0.01) for row in report.rows]  # at a fixed point
        [('implicit', True), ('frozen', True)]

    See also:
        `GradientReport`; `IteratedBlock`, for the gradient modes.
    """
    blocks = adjustable_blocks(model)
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled, so that it has a loss; call `model.compile(...)` first. "
            f"Received: model={model.name!r}"
        )
    modes = [
        name
        for name in blocks[0].inexact_gradients
        if all(name in block.inexact_gradients for block in blocks)
    ]
    if not modes:
        own = {block.name: block.inexact_gradients for block in blocks}
        raise ValueError(
            "`model` must have blocks that share a gradient mode which is not exact. An `Iterate` "
            'has only its own: make it with `gradient="truncated"` or `"implicit"`. '
            f"Received: blocks with the modes {own}"
        )
    original_modes = [block.gradient for block in blocks]
    state = [variable.numpy() for variable in model.non_trainable_variables]
    found = {}
    try:
        # Of the exact modes the one that needs less memory.
        for mode in ("recompute", *modes):
            for block in blocks:
                block.gradient = mode
            found[mode] = _gradients(model, x, y)
            _restore(model, state)
    finally:
        for block, gradient in zip(blocks, original_modes, strict=True):
            block.gradient = gradient
        _restore(model, state)
    paths = [variable.path for variable in model.trainable_variables]
    exact = found.pop("recompute")
    return GradientReport(tuple(_compare(m, g, exact, paths) for m, g in found.items()))


def _gradients(model: Any, x: Any, y: Any) -> list[np.ndarray]:
    @tf.function
    def run(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), training=True)
        return tape.gradient(
            loss,
            [variable.value for variable in model.trainable_variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    gradients = run(*(tf.nest.map_structure(tf.convert_to_tensor, z) for z in (x, y)))
    return [gradient.numpy().astype(np.float64) for gradient in gradients]


def _restore(model: Any, state: Any) -> None:
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)


def _compare(
    mode: str, gradients: Sequence, exact: Sequence, paths: Sequence[str]
) -> GradientError:
    def ratio(numerator, denominator):
        return float(numerator / denominator) if denominator else float(numerator > 0)

    relative_errors = [
        ratio(np.linalg.norm(g - e), np.linalg.norm(e))
        for g, e in zip(gradients, exact, strict=True)
    ]
    g, e = (np.concatenate([z.ravel() for z in zs]) for zs in (gradients, exact))
    norm, length = np.linalg.norm(g), np.linalg.norm(e)
    worst = int(np.argmax(relative_errors))
    return GradientError(
        mode,
        ratio(np.linalg.norm(g - e), length),
        ratio(g @ e, norm * length),
        ratio(norm, length),
        paths[worst],
        relative_errors[worst],
    )
