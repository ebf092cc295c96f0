"""A Lipschitz bound of a whole net, computed along its functional graph."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_iterconv._support.checks import check_choice
from keras_iterconv._support.keras_graph import Call, inner_calls
from keras_iterconv._support.private_keras import graph_of, is_operation
from keras_iterconv.layers import BatchNormalization, MaxPooling2D
from keras_iterconv.layers.protocol import (
    NoBoundError,
    has_rule,
    is_block,
    is_iteration_layer,
    rule_of,
)
from keras_iterconv.layers.rules.norms import NORMS, conv_norm, matrix_norm
from keras_iterconv.layers.rules.rows import BlockRow

ACTIVATION_SLOPES = {
    keras.activations.linear: 1.0,
    keras.activations.relu: 1.0,
    keras.activations.relu6: 1.0,
    keras.activations.leaky_relu: 1.0,
    keras.activations.tanh: 1.0,
    keras.activations.elu: 1.0,
    keras.activations.softplus: 1.0,
    keras.activations.sigmoid: 0.25,
    # p (1 - p) on the diagonal and -p q beside it: at most 1/2 in both norms.
    keras.activations.softmax: 0.5,
}
_MAXIMA = (keras.layers.MaxPooling2D, MaxPooling2D)
_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU)
# Exactly these classes: a subclass may compute anything.
# In evaluation these layers change no value, only the shape.
_IDENTITIES = (
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise,
)


def network_norm(blocks: Iterable[Any]) -> str:
    """Return the norm in which a net is bounded: `"infinity"` where one of its blocks needs it."""
    norms = {check_choice("bound_norm", block.bound_norm, NORMS) for block in blocks}
    return "infinity" if "infinity" in norms else "2"


def network_bound(
    model: keras.Model, norm: str, rows: dict[tuple, list[BlockRow]]
) -> tuple[float | None, str | None]:
    """Return a bound of ||F(x) - F(y)|| / ||x - y|| over all inputs, in evaluation.

    For each tensor of the graph it computes the Lipschitz bound from the net's input to that
    tensor, which is called a gain.

    Args:
        model: Keras model.
        norm: Norm of all tensors, `"2"` or `"infinity"`.
        rows: Rows of the blocks, by `row_key`.

    Returns:
        The bound and None, or None and the reason why there is no bound.
    """
    graph = graph_of(model)
    if graph is None:
        return None, "the graph of a subclassed model is not known; build it as a functional model"
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None, "the net has more than one input or output"
    carried = {id(graph.inputs[0]): 1.0}
    makers: dict[int, Call] = {}
    try:
        for call in inner_calls(model):
            if not call.inputs:
                continue
            gains = [carried[id(tensor)] for tensor in call.inputs]
            carried[id(call.outputs[0])] = _carry(call, gains, norm, rows, carried, makers)
            makers[id(call.outputs[0])] = call
    except NoBoundError as error:
        return None, str(error)
    bound = carried[id(graph.outputs[0])]
    if not np.isfinite(bound):
        return None, "the bound is not finite"
    return float(bound), None


def row_key(call: Call) -> tuple:
    """Return the key of a call's rows: the layer's id and `(height, width)` of its input."""
    shape = call.inputs[0].shape if call.inputs else ()
    image = tuple(shape[1:3]) if len(shape) == 4 else None
    return id(call.layer), image


def _carry(
    call: Call, gains: list[float], norm: str, rows: Mapping, carried: dict, makers: dict
) -> float:
    layer = call.layer
    _check_options(call)
    gain = gains[0]
    if is_iteration_layer(layer):
        return _carry_block(call, gains, norm, rows)
    if type(layer) in _IDENTITIES:
        return gain
    if type(layer) is keras.layers.Dense:
        kernel = np.asarray(layer.kernel, np.float64)
        return gain * matrix_norm(kernel, norm) * _slope(layer)
    if isinstance(layer, keras.layers.Conv2D):
        return gain * _convolution(call, norm) * _slope(layer)
    if type(layer) in (keras.layers.BatchNormalization, BatchNormalization):
        return _normalization(call, gain, norm, carried, makers)
    if type(layer) in _ACTIVATIONS:
        return gain * _slope(layer)
    if type(layer) is keras.layers.GlobalMaxPooling2D:
        return gain
    if type(layer) in (*_MAXIMA, keras.layers.AveragePooling2D):
        return gain * _pooling(call, norm)
    if type(layer) is keras.layers.Rescaling:
        return gain * float(np.abs(layer.scale).max())
    if type(layer) is keras.layers.GlobalAveragePooling2D:
        sizes = call.inputs[0].shape[1:3] if _channels_last(layer) else call.inputs[0].shape[2:4]
        return gain if norm == "infinity" else gain / np.sqrt(np.prod(_known(sizes, layer)))
    return _carry_merge(call, gains, norm)


def _carry_merge(call: Call, gains: list[float], norm: str) -> float:
    layer = call.layer
    kind = type(layer).__name__
    # `x + y` of symbolic tensors is a Keras operation, not a layer.
    operation = is_operation(layer)
    if operation and kind == "ZerosLike":
        return 0.0
    sums = isinstance(layer, keras.layers.Add | keras.layers.Subtract)
    if sums or (operation and kind in ("Add", "Subtract")):
        # Broadcasting repeats entries, which increases the norm.
        if any(tensor.shape != call.outputs[0].shape for tensor in call.inputs):
            raise NoBoundError(f"{layer.name!r} adds tensors of different shapes")
        return sum(gains)
    if isinstance(layer, keras.layers.Concatenate):
        return max(gains) if norm == "infinity" else float(np.linalg.norm(gains))
    raise NoBoundError(f"no rule for the layer {layer.name!r}, a {kind}")


def _carry_block(call: Call, gains: list[float], norm: str, rows: Mapping) -> float:
    layer = call.layer
    # A block without a rule has no bound at any depth: its default says so.
    adaptive = is_block(layer) and layer.threshold is not None
    if adaptive and has_rule(layer, "lipschitz_gain"):
        raise NoBoundError(
            f"{layer.name!r} stops each sample by a threshold: the output is discontinuous where "
            "the number of updates changes"
        )
    return rule_of(layer, "lipschitz_gain")(layer, gains, norm, rows[row_key(call)], call.options)


def _check_options(call: Call) -> None:
    for name, value in call.options.items():
        scheduled = is_block(call.layer) and call.layer.scheduled
        if value is False or (name == "schedule" and scheduled):
            continue
        if isinstance(call.layer, keras.layers.Layer):
            raise NoBoundError(f"{call.layer.name!r} is called with {name}={value!r}")


def _slope(layer: Any) -> float:
    if isinstance(layer, keras.layers.ReLU):
        if layer.threshold:
            raise NoBoundError(f"{layer.name!r} is discontinuous at its threshold")
        return max(1.0, abs(float(layer.negative_slope or 0)))
    try:
        return ACTIVATION_SLOPES[layer.activation]
    except KeyError:
        raise NoBoundError(
            f"no rule for the activation of {layer.name!r}: {layer.activation}"
        ) from None


def _channels_last(layer: Any) -> bool:
    return layer.data_format == "channels_last"


def _known(sizes: Sequence[int | None], layer: Any) -> tuple:
    if None in sizes:
        raise NoBoundError(f"the height or width of the input of {layer.name!r} is unknown")
    return tuple(sizes)


def _convolution(call: Call, norm: str, scale: np.ndarray | None = None) -> float:
    """Return the operator norm of a Conv2D, its filters multiplied by `scale` where given."""
    layer = call.layer
    plain = layer.dilation_rate == (1, 1) and layer.groups == 1 and _channels_last(layer)
    if type(layer) is not keras.layers.Conv2D or not plain:
        raise NoBoundError(
            f"no rule for {layer.name!r}: only a plain Conv2D, channels last, without groups or "
            "dilation, has one"
        )
    kernel = np.asarray(layer.kernel, np.float64)
    if scale is not None:
        kernel = kernel * scale
    if norm == "infinity":
        return conv_norm(kernel, None, norm)
    image = _known(call.inputs[0].shape[1:3], layer)
    return conv_norm(kernel, image, norm, tuple(layer.strides), layer.padding)


def _pooling(call: Call, norm: str) -> float:
    """Return the Lipschitz constant of a pooling layer."""
    layer = call.layer
    if norm == "infinity":
        return 1.0
    if layer.strides != layer.pool_size:
        raise NoBoundError(f"the windows of {layer.name!r} overlap, or leave pixels out")
    if type(layer) in _MAXIMA or not _channels_last(layer):
        # Each pixel belongs to one window, whose result changes by no more than the pixel.
        return 1.0
    sizes = _known(call.inputs[0].shape[1:3], layer)
    fewest = list(layer.pool_size)
    if layer.padding == "same":
        # A window at the border is the average of the pixels that lie in the image.
        padded = [-size % window for size, window in zip(sizes, fewest, strict=True)]
        fewest = [window - (more + 1) // 2 for window, more in zip(fewest, padded, strict=True)]
        fewest = [min(pair) for pair in zip(fewest, sizes, strict=True)]
    return float(1 / np.sqrt(np.prod(fewest)))


def _normalization(call: Call, gain: float, norm: str, carried: dict, makers: dict) -> float:
    layer = call.layer
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        raise NoBoundError(f"{layer.name!r} does not normalise along the last axis")
    scale = 1 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, np.float64)
    before = makers.get(id(call.inputs[0]))
    # A convolution and the normalisation after it are one linear map, whose norm is often much
    # smaller than the product of the two norms.
    if (
        before is not None
        and type(before.layer) is keras.layers.Conv2D
        and before.layer.activation is keras.activations.linear
    ):
        return carried[id(before.inputs[0])] * _convolution(before, norm, scale)
    return gain * float(np.abs(scale).max())
