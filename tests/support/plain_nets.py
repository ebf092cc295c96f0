"""Nets of plain Keras layers: residual ones, and those with the weights of a `ResidualStage`."""

import keras

import keras_iterconv as ki
from keras_iterconv.layers.residual_function import BATCH_NORM_EPSILON


def residual_net(blocks=3, width=4, image=(4, 3), classes=4, head=True, seed=0):
    """Return a functional ResNet whose layers are named by hand, with random statistics.

    A block is addition, batch normalisation, ReLU and convolution; `"stem"` gives the first state.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*image, 3))
    state = keras.layers.Conv2D(width, 3, padding="same", name="stem")(inputs)
    for t in range(blocks):
        y = keras.layers.BatchNormalization(name=f"block{t}_norm")(state)
        y = keras.layers.ReLU(name=f"block{t}_relu")(y)
        y = keras.layers.Conv2D(width, 3, padding="same", name=f"block{t}_conv")(y)
        state = keras.layers.Add(name=f"block{t}_add")([state, y])
    if head:
        state = keras.layers.GlobalAveragePooling2D(name="pool")(state)
        state = keras.layers.Dense(classes, name="head")(state)
    return inputs, state


def rebuild(model):
    """Return a net of plain layers that computes what a net of `ResidualStage`s computes.

    Block t of a stage `stage` closes with the addition `stage_add{t}`.
    """
    inputs = state = keras.Input(model.input_shape[1:])
    for layer in model.layers[1:]:
        if isinstance(layer, ki.ResidualStage):
            state = _plain_stage(layer, state)
        else:
            copy = type(layer).from_config(layer.get_config())
            state = copy(state)
            copy.set_weights(layer.get_weights())
    return keras.Model(inputs, state)


def _plain_stage(stage, state):
    start = state
    for t in range(stage.blocks):
        y = state
        for number in (1, 2):
            names = [f"{name}{number}" for name in ("gamma", "beta", "mean", "variance")]
            norm = keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON)
            y = norm(y)
            norm.set_weights([getattr(stage, name).numpy()[t] for name in names])
            conv = keras.layers.Conv2D(stage.filters, 3, padding="same", use_bias=False)
            y = conv(keras.layers.ReLU()(y))
            kernel = getattr(stage, f"kernel{number}").numpy()[t]
            if number == 2 and stage.lipschitz_cap is not None:
                kernel = kernel / stage.divisor.numpy()[t]
            conv.set_weights([kernel])
        skip = state if stage.skip_from == "previous" else start
        state = keras.layers.Add(name=f"{stage.name}_add{t}")([skip, y])
    return state
