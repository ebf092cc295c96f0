"""L's ResNet three times: ours, of stock Keras layers, and in PyTorch, with equal weights."""

import keras
import numpy as np

import keras_iterconv as ki
from keras_iterconv.layers.residual_function import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM


def stock_twin(model: keras.Model) -> keras.Model:
    """Rebuild a net of `create_model("resnet_w*")` from Keras's own layers, weights included."""
    stages = {layer.name: layer for layer in ki.iterated_blocks(model)}
    state = inputs = keras.Input(model.input_shape[1:])
    for layer in model.layers[1:]:
        if layer.name in stages:
            state = _stock_stage(state, layer)
            continue
        stock = layer.__class__
        if issubclass(stock, keras.layers.BatchNormalization):
            stock = keras.layers.BatchNormalization
        twin = stock.from_config(layer.get_config())
        state = twin(state)
        twin.set_weights(layer.get_weights())
    return keras.Model(inputs, state)


def _stock_stage(state, stage):
    for t in range(stage.blocks):
        y = state
        for number in "12":
            norm = keras.layers.BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON
            )
            conv = keras.layers.Conv2D(stage.filters, 3, padding="same", use_bias=False)
            y = conv(keras.layers.ReLU()(norm(y)))
            conv.kernel.assign(getattr(stage, f"kernel{number}")[t])
            for weight, name in zip(
                norm.weights, ("gamma", "beta", "mean", "variance"), strict=True
            ):
                weight.assign(getattr(stage, name + number)[t])
        state = keras.layers.Add()([state, y])
    return state


def torch_twin(model: keras.Model):
    """Rebuild the net in PyTorch, channels last, weights included."""
    import torch
    from torch import nn

    def tensor(value):
        return torch.from_numpy(np.array(value))

    def conv(kernel, stride=1):
        kernel = np.asarray(kernel).transpose(3, 2, 0, 1)
        layer = nn.Conv2d(*kernel.shape[1::-1], 3, stride, padding=1 if stride == 1 else 0,
                          bias=False)  # fmt: skip
        layer.weight.data = tensor(kernel)
        # TensorFlow pads what is odd below and to the right.
        return layer if stride == 1 else nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), layer)

    def norm(gamma, beta, mean, variance):
        layer = nn.BatchNorm2d(len(gamma), eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_MOMENTUM)
        layer.weight.data, layer.bias.data = tensor(gamma), tensor(beta)
        layer.running_mean, layer.running_var = tensor(mean), tensor(variance)
        return layer

    class Block(nn.Module):
        def __init__(self, stage, t):
            super().__init__()
            layers = []
            for number in "12":
                names = ("gamma", "beta", "mean", "variance")
                layers += [norm(*(np.asarray(getattr(stage, n + number)[t]) for n in names)),
                           nn.ReLU(), conv(getattr(stage, f"kernel{number}")[t])]  # fmt: skip
            self.f = nn.Sequential(*layers)

        def forward(self, z):
            return z + self.f(z)

    layers = []
    for layer in model.layers[1:]:
        if isinstance(layer, ki.ResidualStage):
            layers += [Block(layer, t) for t in range(layer.blocks)]
        elif isinstance(layer, keras.layers.Conv2D):
            layers.append(conv(layer.kernel.numpy(), layer.strides[0]))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layers.append(norm(*layer.get_weights()))
        elif isinstance(layer, keras.layers.Activation):
            layers.append(nn.ReLU())
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        else:
            kernel, bias = layer.get_weights()
            dense = nn.Linear(*kernel.shape)
            dense.weight.data, dense.bias.data = tensor(kernel.T), tensor(bias)
            layers.append(dense)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)
