"""The ResNet of Lippl et al., rebuilt from stock Keras layers with equal weights."""

import keras

import keras_iterconv as ki
from keras_iterconv.layers.block_values import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM

from . import stock_layers

# Weights of a batch norm.
NORM = ("gamma", "beta", "mean", "variance")


def stock_twin(model: keras.Model) -> keras.Model:
    """Return a model of `create_model("resnet_w*")` rebuilt from stock layers, weights included."""
    return stock_layers.rebuild(model, _stock_stage)


def _stock_stage(state, stage):
    if not isinstance(stage, ki.ResidualStage):
        return None
    for t in range(stage.blocks):
        y = state
        for number in "12":
            norm = keras.layers.BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON
            )
            conv = keras.layers.Conv2D(stage.filters, 3, padding="same", use_bias=False)
            y = conv(keras.layers.ReLU()(norm(y)))
            conv.kernel.assign(getattr(stage, f"kernel{number}")[t])
            for weight, name in zip(norm.weights, NORM, strict=True):
                weight.assign(getattr(stage, name + number)[t])
        state = keras.layers.Add()([state, y])
    return state
