"""Copies of an update for untied iteration."""

from typing import Any

import keras

from keras_iterconv.layers.layer_update import is_functional


def copy_layer(layer: keras.layers.Layer, number: int) -> Any:
    """Return a copy of a layer or model with initial weights of its own.

    Initializers with a fixed seed give each copy the same weights.

    Args:
        layer: The layer or model.
        number: The number of the copy, for its name.
    """
    if is_functional(layer):
        copy = keras.models.clone_model(layer)
        copy.name = f"{layer.name}_{number}"
        return copy
    config = {**layer.get_config(), "name": f"{layer.name}_{number}"}
    return type(layer).from_config(config)
