"""A model rebuilt from stock Keras layers."""

from collections.abc import Callable

import keras


def rebuild(model: keras.Model, add_block: Callable) -> keras.Model:
    """Return a chain of layers rebuilt from stock Keras layers, with equal weights.

    Args:
        model: A chain of layers.
        add_block: A function from `(state, layer)` to the state after the block, or None for a
            layer that is not a block.

    Returns:
        A `keras.Model`.
    """
    state = inputs = keras.Input(model.input_shape[1:])
    for layer in model.layers[1:]:
        after = add_block(state, layer)
        if after is None:
            stock = layer.__class__
            if issubclass(stock, keras.layers.BatchNormalization):
                stock = keras.layers.BatchNormalization
            twin = stock.from_config(layer.get_config())
            after = twin(state)
            twin.set_weights(layer.get_weights())
        state = after
    return keras.Model(inputs, state)
