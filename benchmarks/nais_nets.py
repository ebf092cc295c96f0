"""Equal NAIS-Nets for comparison: of stock Keras layers, and unrolled in Python."""

from collections.abc import Callable

import keras
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.projections import project_conv

from . import stock_layers


def check_chain(model: keras.Model) -> None:
    """Raise `ValueError` if a model cannot be rebuilt by the functions of this module."""
    for block in ki.iterated_blocks(model):
        check_nais_block(block)


def check_nais_block(block: keras.layers.Layer) -> None:
    """Raise `ValueError` if a block cannot be rebuilt elsewhere."""
    plain = isinstance(block, ki.NAISConv2D) and block.tied and block.threshold is None
    if not plain or (block.center, block.initial_state) != ("trainable", "input"):
        raise ValueError(
            "`model` must be a chain of tied NAISConv2D blocks of fixed depth, with trainable "
            f"centres, that start at their input. Received: block={block.name!r}"
        )


def stock_twin(model: keras.Model) -> keras.Model:
    """Return a NAIS-Net rebuilt from stock Keras layers, with equal weights and projections.

    Each block is one `Conv2D`, which is called once for each update. Its kernel holds all of C,
    with the centres: a step of gradient descent, with momentum or without, changes a centre
    exactly as it changes delta.

    Args:
        model: A model of `create_model("nais*")`, tied and of fixed depth.

    Returns:
        A `keras.Model`.
    """
    check_chain(model)
    return stock_layers.rebuild(model, _stock_block)


def _stock_block(inputs, block):
    if not isinstance(block, ki.NAISConv2D):
        return None
    layers = keras.layers
    window = (block.filters, block.kernel_size)
    constraint = CenteredProjection(block.margin, block.center_margin)
    convolve = layers.Conv2D(*window, padding="same", use_bias=False, kernel_constraint=constraint)
    inject = layers.Conv2D(*window, padding="same")
    activate = {"relu": layers.ReLU, "tanh": lambda: layers.Activation("tanh")}[block.activation]
    drive, state = inject(inputs), inputs
    for _ in range(block.max_unroll):
        change = activate()(layers.Add()([convolve(state), drive]))
        if block.step_size != 1:
            change = layers.Rescaling(block.step_size)(change)
        state = layers.Add()([state, change])
    convolve.kernel.assign(block.state_kernel())
    inject.kernel.assign(block.D)
    inject.bias.assign(block.E)
    return state


class CenteredProjection(keras.constraints.Constraint):
    """The projection of Algorithm 2, for a kernel that holds its centres."""

    def __init__(self, margin: float, center_margin: float):
        self.margin = margin
        self.center_margin = center_margin

    def __call__(self, value):
        value = tf.convert_to_tensor(value)
        middle = value[value.shape[0] // 2, value.shape[1] // 2]
        delta = -1 - tf.linalg.diag_part(middle)
        return project_conv(value, delta, self.margin, self.center_margin)[0]


def unrolled_twin(model: keras.Model) -> keras.Model:
    """Return a NAIS-Net with every update unrolled in the graph, and gradients by TensorFlow.

    Args:
        model: A model of `create_model("nais*")`, tied, of fixed depth and not compiled.

    Returns:
        A model of the same class and weights.
    """
    check_chain(model)

    def clone(layer):
        kind = UnrolledBlock if isinstance(layer, ki.NAISConv2D) else layer.__class__
        return kind.from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


class UnrolledBlock(ki.NAISConv2D):
    """A block that unrolls its updates in a Python loop."""

    def call(self, inputs, training=None, return_depth=False):
        change, state = change_of(self, inputs), inputs
        for _ in range(self.max_unroll):
            state += change(state)
        return state


def change_of(block: ki.NAISConv2D, inputs: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the function from a tied block's state X to its change, h sigma(C * X + D * U + E)."""
    kernel = block.state_kernel()
    activation = {"relu": tf.nn.relu, "tanh": tf.nn.tanh}[block.activation]
    drive = tf.nn.bias_add(tf.nn.conv2d(inputs, block.D, 1, "SAME"), block.E)

    def change(state):
        value = activation(tf.nn.conv2d(state, kernel, 1, "SAME") + drive)
        return value if block.step_size == 1 else block.step_size * value

    return change
