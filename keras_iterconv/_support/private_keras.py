"""All symbols of Keras that the package uses and that are not public.

They can change in any version of Keras. `tests/keras_iterconv/_support/test_private_keras.py` has a
test for each symbol that shows what a change breaks. `pyproject.toml` excludes versions of Keras
that have not passed these tests.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state, masking
from keras.src.models.functional import Functional

# Methods of `keras.Model` and `keras.layers.BatchNormalization` that classes of this package
# override, and the purpose of the override.
OVERRIDDEN = {
    (keras.Model, "_maybe_symbolic_build"): "the first batch of several replicas",
    (keras.Model, "_run_through_graph"): "convolutions of empty batches",
    (keras.layers.BatchNormalization, "_moments"): "statistics of an empty batch",
}
# The module with the configured backend, which can be read before Keras itself is imported.
BACKEND_CONFIG = "keras.src.backend.config"
# Prefix of the modules of Keras operations, such as `x + y` of symbolic tensors.
_OPERATIONS = "keras.src.ops"


def graph_of(layer: Any) -> Any:
    """Return the functional model whose graph is what a model computes.

    It is the model itself if it is functional, and that inside a `Sequential` once this is built;
    None for any other layer, such as a subclassed model, whose Python code may compute anything.
    """
    if not isinstance(layer, keras.Model):
        return None
    if type(layer).call is keras.Sequential.call:
        return layer._functional
    return layer if getattr(type(layer), "call", None) is Functional.call else None


def layers_of(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers that a layer or model holds itself."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def nodes(model: keras.Model) -> Iterator:
    """Yield the nodes of a functional model, each after the nodes whose outputs it reads.

    The nodes stored in the layers are not used: they include those of other models over the same
    layers.
    """
    # Keras counts depths from the outputs.
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def run_through_graph(model: keras.Model, inputs: Any, operation_fn: Callable) -> Any:
    """Return a functional model's outputs, with `operation_fn(layer)` called for each layer."""
    return model._run_through_graph(inputs, operation_fn)


def call_again(node: Any, values: dict[int, Any]) -> list:
    """Repeat the call of a node in evaluation, and return its outputs.

    Args:
        node: Node of a functional model.
        values: Values of its symbolic inputs, by their `id`.
    """
    args, kwargs = node.arguments.fill_in(values)
    if "training" in getattr(node.operation, "_call_context_args", ()):
        kwargs["training"] = False
    return keras.tree.flatten(node.operation(*args, **kwargs))


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return all layers inside a layer or model, at any depth."""
    return list(layer._flatten_layers(include_self=False))


def is_operation(layer: Any) -> bool:
    """Return whether a node's layer is a Keras operation on tensors, not a layer."""
    return type(layer).__module__.startswith(_OPERATIONS)


def mask_of(tensor: Any) -> Any:
    """Return the Keras mask of a tensor, symbolic or not, or that of the first in a structure."""
    masks = (masking.get_keras_mask(each) for each in keras.tree.flatten(tensor))
    return next((mask for mask in masks if mask is not None), None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Attach a Keras mask to a tensor, for the layers that read it."""
    masking.set_keras_mask(tensor, mask)


def serialize_shared(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return the configuration of a layer inside another's, also where a model has both.

    In a `.keras` file Keras marks an object that occurs twice, so that it is one object again when
    the file is read. The mark of the first place gets lost where that is inside another layer's
    configuration, which Keras copies; so it is set here from the start.
    """
    config = keras.saving.serialize_keras_object(layer)
    if global_state.get_global_attribute("shared_objects/id_to_config_map") is not None:
        config["shared_object_id"] = id(layer)
    return config
