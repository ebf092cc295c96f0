"""The depth settings of the blocks that a model's class makes, for the files of the model."""

import warnings
from typing import Any

import keras

from keras_iterconv._support.keras_graph import inner_calls
from keras_iterconv._support.private_keras import graph_of, layers_within
from keras_iterconv.layers.protocol import is_block


def depth_settings(model: keras.Model) -> list[list]:
    """Return `max_unroll` and `threshold` of each block that the class makes when it is loaded.

    Args:
        model: A built model.
    """
    return [[block.max_unroll, block.threshold] for block in _blocks_made_anew(model)]


def set_depth_settings(model: keras.Model, settings: list[list]) -> None:
    """Set what `depth_settings` returned, and warn where the class makes other blocks now.

    Args:
        model: The loaded model.
        settings: Result of `depth_settings`; an empty list changes nothing.
    """
    blocks = _blocks_made_anew(model)
    if settings and len(settings) != len(blocks):
        warnings.warn(
            f"The depth settings of {model.name!r} in the file are not set: they are of "
            f"{len(settings)} blocks, and the class makes {len(blocks)}",
            stacklevel=2,
        )
        return
    for block, (max_unroll, threshold) in zip(blocks, settings, strict=False):
        block.max_unroll, block.threshold = max_unroll, threshold


def _blocks_made_anew(model: keras.Model) -> list[Any]:
    """Return the adjustable blocks that a class makes when it is loaded, in its `__init__`.

    The configuration of a functional model holds the layers of its graph and their settings, but
    not those inside a subclassed model or layer.
    """
    graph = graph_of(model)
    kept = [] if graph is None else [call.layer for call in inner_calls(graph)]
    return [
        layer
        for layer in layers_within(model)
        if is_block(layer) and layer.adjustable and layer not in kept
    ]
