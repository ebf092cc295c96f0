"""Folding of Lipschitz caps and normalisations into kernels, and of dtypes to float32."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_iterconv._support.private_keras import autocast_to, is_operation, layers_within
from keras_iterconv.layers.protocol import is_iteration_layer


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
        if is_operation(layer):
            return type(layer).from_config(layer.get_config())
        return _copy(layer)

    # The view is not compiled: a clone compiles itself like its original.
    view = keras.Model(model.input, model.output, name=model.name)
    folded = keras.models.clone_model(view, clone_function=copy)
    for layer, twin in zip(view.layers, folded.layers, strict=True):
        _assign(twin, layer)
    return folded


def folded_layer(layer: Any) -> Any:
    """Return the layer that exporters run in place of one that is repeated or repeats.

    Args:
        layer: A built `IterationLayer`.

    Returns:
        A copy in float32 with folded weights; the layer itself where there is nothing to fold.
    """
    if not layer.folds:
        return layer
    twin = _copy(layer)
    twin.build_from_config(layer.get_build_config())
    _assign(twin, layer)
    return twin


def _copy(layer: Any) -> Any:
    config = layer.folded_config() if is_iteration_layer(layer) else layer.get_config()
    return type(layer).from_config({**config, "dtype": "float32"})


def _assign(twin: Any, layer: Any) -> None:
    if is_iteration_layer(layer):
        twin.assign_folded(layer)
    else:
        twin.set_weights(layer.get_weights())


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[None]:
    """Let the layers of a model compute in float32, in any precision they were made with.

    The variables do not change; those of another dtype are cast where they are read.
    """
    before = {}
    for layer in (model, *layers_within(model)):
        policy = layer.dtype_policy
        # Layers of integers stay, and so do those that Keras has quantised.
        if policy.quantization_mode is None and "float" in (policy.compute_dtype or ""):
            before[layer] = policy
    try:
        for layer in before:
            layer.dtype_policy = "float32"
        with autocast_to("float32"):
            yield
    finally:
        for layer, policy in before.items():
            layer.dtype_policy = policy
