"""How much arithmetic a net's convolutions are: two operations a multiply-add."""

import math

import keras

import keras_iterconv as ki


def forward_flops(model: keras.Model) -> int:
    """Return the operations of the convolutions of one image's forward pass.

    Padding counts as if it were multiplied. Of blocks, fixed depth is assumed.

    Args:
        model: A chain of Keras's `Conv2D`, `NAISConv2D`, `ResidualStage` and layers without
            convolutions.
    """
    return sum(count * size for layer in model.layers for count, size in _convolutions(layer))


def training_flops(model: keras.Model) -> int:
    """Return the operations of the convolutions that a training step needs for one image.

    A forward pass three times, since each convolution has a gradient in its kernel and one in its
    input. What is recomputed is not counted: it is a cost of the method and no part of the task.
    With `gradient="frozen"` a block of K updates needs K gradients in the state, one in the
    kernel and, with tanh, the last state's slopes.
    """
    total = 0
    for layer in model.layers:
        convolutions = _convolutions(layer)
        total += 3 * sum(count * size for count, size in convolutions)
        if isinstance(layer, ki.NAISConv2D) and layer.gradient == "frozen" and layer.tied:
            updates, size = convolutions[0]
            slopes = int(layer.activation == "tanh")
            total -= (3 * updates - (2 * updates + 1 + slopes)) * size
    return total


def _convolutions(layer) -> list[tuple[int, int]]:
    """Return how often a layer makes which convolution, each as its operations an image."""
    if isinstance(layer, keras.layers.Conv2D):
        return [(1, _operations(layer.kernel.shape, layer.output.shape))]
    if isinstance(layer, ki.NAISConv2D):
        image, updates = layer.output.shape, layer.max_unroll
        # Tied, D acts on the input once; untied, each update has its own D.
        injections = 1 if layer.tied else updates
        return [
            (updates, _operations(layer.C.shape, image)),
            (injections, _operations(layer.D.shape, image)),
        ]
    if isinstance(layer, ki.ResidualStage):
        return [(2 * layer.blocks, _operations(layer.kernel1.shape, layer.output.shape))]
    return []


def _operations(kernel_shape, output_shape) -> int:
    return 2 * math.prod(kernel_shape[-4:]) * math.prod(output_shape[1:3])
