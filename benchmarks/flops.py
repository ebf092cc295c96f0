"""The number of operations in a model's convolutions; a multiply-add counts as two."""

import math
from collections.abc import Sequence

import keras

import keras_iterconv as ki


def forward_flops(model: keras.Model) -> int:
    """Return the number of operations in the convolutions of one image's forward pass.

    Products with padding are counted. Blocks are counted with fixed depth.

    Args:
        model: A chain of Keras's `Conv2D`, `NAISConv2D`, `ResidualStage` and layers without
            convolutions.
    """
    return sum(count * size for layer in model.layers for count, size in _convolutions(layer))


def training_flops(model: keras.Model) -> int:
    """Return the number of operations in the convolutions of a training step for one image.

    The number is three times that of a forward pass, since each convolution also has a gradient
    with respect to its kernel and one with respect to its input. Recomputation is not counted: it
    is a cost of the method, not of the task. With `gradient="frozen"`, a block of K updates needs
    K gradients with respect to the state, one with respect to the kernel and, with tanh, the
    slopes at the last state.
    """
    total = 0
    for layer in model.layers:
        convolutions = _convolutions(layer)
        total += 3 * sum(count * size for count, size in convolutions)
        if type(layer) is ki.NAISConv2D and layer.gradient == "frozen" and layer.tied:
            updates, size = convolutions[0]
            slopes = int(layer.activation == "tanh")
            total -= (3 * updates - (2 * updates + 1 + slopes)) * size
    return total


def _convolutions(layer: keras.layers.Layer) -> list[tuple[int, int]]:
    """Return the convolutions of a layer, each as its count and its operations per image."""
    count = _COUNTS.get(type(layer))
    return [] if count is None else count(layer)


def _of_conv(layer):
    return [(1, _operations(layer.kernel.shape, layer.output.shape))]


def _of_nais_conv(layer):
    image, updates = layer.output.shape, layer.max_unroll
    # A tied block applies D to the input once; in an untied block each update has its own D.
    injections = 1 if layer.tied else updates
    return [
        (updates, _operations(layer.C.shape, image)),
        (injections, _operations(layer.D.shape, image)),
    ]


def _of_stage(layer):
    return [(2 * layer.blocks, _operations(layer.kernel1.shape, layer.output.shape))]


# Exactly these classes: a subclass may compute anything.
_COUNTS = {
    keras.layers.Conv2D: _of_conv,
    ki.NAISConv2D: _of_nais_conv,
    ki.ResidualStage: _of_stage,
}


def _operations(kernel_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    return 2 * math.prod(kernel_shape[-4:]) * math.prod(output_shape[1:3])
