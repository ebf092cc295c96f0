"""A net rebuilt from Keras's own layers."""

from collections.abc import Callable

import keras


def rebuild(model: keras.Model, add_block: Callable) -> keras.Model:
    """Rebuild a chain of layers from Keras's own, weights included.

    Args:
        model: The net, a chain.
        add_block: Maps `(state, layer)` to the state after a block, or to None where the layer is
            none.

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
