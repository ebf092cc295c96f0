"""The ResNet of Lippl et al., rebuilt from stock Keras layers and in PyTorch with equal weights."""

from typing import Any

import keras

import keras_iterconv as ki
from keras_iterconv.layers.block_values import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM

from . import stock_layers

_NORM = ("gamma", "beta", "mean", "variance")


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
            for weight, name in zip(norm.weights, _NORM, strict=True):
                weight.assign(getattr(stage, name + number)[t])
        state = keras.layers.Add()([state, y])
    return state


def torch_twin(model: keras.Model) -> Any:
    """Return the model rebuilt in PyTorch, channels last, with equal weights."""
    from torch import nn

    from .torch_layers import batch_norm, convolution, rebuild

    class Block(nn.Module):
        def __init__(self, stage, t):
            super().__init__()
            layers = []
            for number in "12":
                weights = [getattr(stage, name + number)[t] for name in _NORM]
                layers += [
                    batch_norm(weights, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM),
                    nn.ReLU(),
                    *convolution(getattr(stage, f"kernel{number}")[t]),
                ]
            self.f = nn.Sequential(*layers)

        def forward(self, z):
            return z + self.f(z)

    def make_blocks(layer):
        if isinstance(layer, ki.ResidualStage):
            return [Block(layer, t) for t in range(layer.blocks)]
        return None

    return rebuild(model, make_blocks)
