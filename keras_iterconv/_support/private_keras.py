"""All symbols of Keras that the package uses and that are not public.

They can change in any version of Keras. `tests/keras_iterconv/_support/test_private_keras.py` has a
test for each symbol that shows what a change breaks. `pyproject.toml` excludes versions of Keras
that have not passed these tests.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state, masking
from keras.src.backend.common.variables import AutocastScope
from keras.src.layers.layer import CallSpec
from keras.src.models.functional import Functional
from keras.src.utils.python_utils import default

# A context in which layers read their floating-point variables in a dtype.
autocast_to = AutocastScope

# A method with this mark counts as not overridden, so that Keras makes the configuration of a
# subclassed model from the arguments of its `__init__`.
keeps_default = default

# Methods of `keras.Model` and `keras.layers.BatchNormalization` that classes of this package
# override, and the purpose of the override.
OVERRIDDEN = {
    (keras.Model, "_maybe_symbolic_build"): "the first batch of several replicas",
    (keras.Model, "_make_function"): "outputs of a step of several workers",
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


# The bases that a functional model has, and a subclassed one has not.
_ONLY_FUNCTIONAL = set(Functional.__mro__) - set(keras.Model.__mro__)


class FunctionalOrSubclassed(type(keras.Model)):  # type: ignore[misc]
    """Metaclass of a functional model class whose subclasses need not be functional.

    When the first functional model of a class is made, Keras puts `Functional` into the bases of
    the class, for good and so for all its subclasses. This metaclass leaves it out of the bases of
    a subclass with a `call` of its own, unless a model of the subclass was made from inputs and
    outputs.
    """

    def mro(cls) -> list[type]:
        order = super().mro()
        caller = next(base for base in order if "call" in vars(base))
        if caller in Functional.__mro__ or "_from_outputs" in vars(cls):
            return order
        return [base for base in order if base not in _ONLY_FUNCTIONAL]

    def make_functional(cls) -> None:
        """Let the class have the bases of a functional model, also with a `call` of its own."""
        if "_from_outputs" not in vars(cls):
            cls._from_outputs = True
            # Upon this, Python asks for the order again.
            cls.__bases__ = cls.__bases__  # type: ignore[has-type]


def nodes(model: keras.Model) -> Iterator:
    """Yield the nodes of a functional model, each after the nodes whose outputs it reads.

    The nodes stored in the layers are not used: they include those of other models over the same
    layers.
    """
    # Keras counts depths from the outputs.
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def build_for(layer: keras.layers.Layer, *args: Any) -> None:
    """Build a layer for the arguments of a call, as the call would, but outside of its trace.

    Within a trace Keras drops what `build` assigns to weights.

    Args:
        layer: The layer; one that is built stays as it is.
        *args: The arguments, structures of symbolic tensors.
    """
    if layer._convert_input_args:
        policy, dtype = layer.dtype_policy, layer.input_dtype
        args = keras.tree.map_structure(
            lambda z: policy.convert_input(z, layer.autocast, dtype), args
        )
    with layer._open_name_scope():
        layer._maybe_build(CallSpec(layer._call_signature, layer._call_context_args, args, {}))


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
