"""Folding of Lipschitz caps and normalisations into kernels, for inference."""

import keras
import numpy as np

from keras_iterconv.layers.protocol import is_block
from keras_iterconv.layers.residual_function import BATCH_NORM_EPSILON, ResidualFunction


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
        config = {**layer.get_config(), "dtype": "float32"}
        if isinstance(layer, ResidualFunction):
            config["lipschitz_cap"] = None
        return type(layer).from_config(config)

    # The view is not compiled: a clone compiles itself like its original.
    view = keras.Model(model.input, model.output, name=model.name)
    folded = keras.models.clone_model(view, clone_function=copy)
    for layer, twin in zip(view.layers, folded.layers, strict=True):
        if isinstance(layer, ResidualFunction):
            _fold_function(layer, twin)
        else:
            twin.set_weights(layer.get_weights())
        if is_block(layer) and layer.adjustable:
            # The configuration of an untied block holds the number of updates with weights.
            twin.max_unroll = layer.max_unroll
    return folded


def _fold_function(layer: ResidualFunction, folded: ResidualFunction) -> None:
    """Assign the folded weights of a residual function or a stage of them to the copy."""
    # Computed in double precision and rounded once.
    values = {
        name: np.asarray(keras.ops.convert_to_numpy(getattr(layer, name)), np.float64)
        for name in layer.value_names()
    }
    scale = values["gamma2"] / np.sqrt(values["variance2"] + BATCH_NORM_EPSILON)
    values["kernel1"] = values["kernel1"] * scale[..., np.newaxis, np.newaxis, np.newaxis, :]
    values["beta2"] = values["beta2"] - values["mean2"] * scale
    values["mean2"] = np.zeros_like(scale)
    values["gamma2"] = np.ones_like(scale)
    values["variance2"] = np.full_like(scale, 1 - BATCH_NORM_EPSILON)
    divisor = values.pop("divisor", None)
    if divisor is not None:
        values["kernel2"] = values["kernel2"] / divisor[..., *[np.newaxis] * 4]
    for name in folded.value_names():
        getattr(folded, name).assign(values[name])
