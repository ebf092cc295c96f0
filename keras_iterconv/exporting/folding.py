"""Folding of Lipschitz caps and normalisations into kernels, for inference."""

import keras

from keras_iterconv._support.private_keras import is_operation
from keras_iterconv.layers.protocol import is_iteration_layer


def fold(model: keras.Model) -> keras.Model:
    """Return a copy in float32 with caps and second normalisations folded into the kernels.

    In f = Conv2 . ReLU . BN2 . Conv1 . ReLU . BN1 the scale of BN2 is folded into Conv1, and the
    divisor of a capped f into Conv2. BN1 stays, because a ReLU lies between it and Conv1. BN2
    becomes a shift. The copy has no cap; its Lipschitz bound is the same, as `certify` shows.

    Args:
        model: Functional model, in any precision.

    Returns:
        A functional model with the same outputs in evaluation, up to rounding.

    Reference:
        Lippl et al. 2024, Eq. 3.
    """

    def copy(layer):
        if is_operation(layer):
            return type(layer).from_config(layer.get_config())
        config = layer.folded_config() if is_iteration_layer(layer) else layer.get_config()
        return type(layer).from_config({**config, "dtype": "float32"})

    # The view is not compiled: a clone compiles itself like its original.
    view = keras.Model(model.input, model.output, name=model.name)
    folded = keras.models.clone_model(view, clone_function=copy)
    for layer, twin in zip(view.layers, folded.layers, strict=True):
        if is_iteration_layer(layer):
            twin.assign_folded(layer)
        else:
            twin.set_weights(layer.get_weights())
    return folded
