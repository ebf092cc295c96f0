"""A chain of layers as plain arrays and numbers, for a process that has no TensorFlow."""

from typing import Any

import keras
import numpy as np

import keras_iterconv as ki
from benchmarks.nais_nets import check_nais_block
from benchmarks.residual_nets import NORM
from keras_iterconv.layers.block_values import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM
from keras_iterconv.projections import center_mask


def describe_net(model: keras.Model) -> list[dict[str, Any]]:
    """Return what `torch_nets.build_net` needs: for each module its kind, settings and arrays.

    Args:
        model: A model of `create_model("nais*")`, tied and of fixed depth, or of
            `create_model("resnet_w*")`.

    Raises:
        ValueError: A layer has no equivalent.
    """
    return [module for layer in model.layers[1:] for module in _modules(layer)]


def _modules(layer: keras.layers.Layer) -> list[dict[str, Any]]:
    if isinstance(layer, ki.NAISConv2D):
        return [_nais_block(layer)]
    if isinstance(layer, ki.ResidualStage):
        return [_residual_block(layer, t) for t in range(layer.blocks)]
    if isinstance(layer, keras.layers.Conv2D):
        kernel = _array(layer.kernel)
        return [{"kind": "convolution", "kernel": kernel, "stride": layer.strides[0]}]
    if isinstance(layer, keras.layers.BatchNormalization):
        return [_norm(layer.get_weights(), layer.epsilon, layer.momentum)]
    if isinstance(layer, keras.layers.Activation):
        return [{"kind": "relu"}]
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return [{"kind": "average"}]
    if isinstance(layer, keras.layers.Dense):
        kernel, bias = layer.get_weights()
        return [{"kind": "dense", "kernel": kernel, "bias": bias}]
    raise ValueError(f"{layer.name!r} has no equivalent in PyTorch")


def _nais_block(block: ki.NAISConv2D) -> dict[str, Any]:
    check_nais_block(block)
    return {
        "kind": "nais",
        **{name: _array(getattr(block, name)) for name in ("delta", "C", "D", "E")},
        "is_center": np.array(center_mask((block.kernel_size,) * 2, block.filters)),
        "activation": block.activation,
        "updates": block.max_unroll,
        "step_size": block.step_size,
        "margin": block.margin,
        "center_margin": block.center_margin,
    }


def _residual_block(stage: ki.ResidualStage, t: int) -> dict[str, Any]:
    half = []
    for number in "12":
        weights = [_array(getattr(stage, name + number)[t]) for name in NORM]
        kernel = _array(getattr(stage, f"kernel{number}")[t])
        half += [
            _norm(weights, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM),
            {"kind": "relu"},
            {"kind": "convolution", "kernel": kernel, "stride": 1},
        ]
    return {"kind": "residual", "inner": half}


def _norm(weights: list[np.ndarray], epsilon: float, momentum: float) -> dict[str, Any]:
    return {
        "kind": "norm",
        **dict(zip(NORM, weights, strict=True)),
        "epsilon": epsilon,
        "momentum": momentum,
    }


def _array(value: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(value))
