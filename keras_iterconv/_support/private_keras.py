"""Everything of Keras that is not public and that the package uses.

Keras promises none of it. `tests/keras_iterconv/_support/test_private_keras.py` has a test for each
symbol, which says what breaks where a version of Keras changes it; `pyproject.toml` excludes the
versions that these tests have not passed.
"""

from collections.abc import Callable, Iterator

import keras

# Methods of `keras.Model` and `keras.layers.BatchNormalization` that classes of this package
# override, and what the override is for.
OVERRIDDEN = {
    (keras.Model, "_maybe_symbolic_build"): "the first batch of several replicas",
    (keras.Model, "_run_through_graph"): "convolutions of empty batches",
    (keras.layers.BatchNormalization, "_moments"): "statistics of an empty batch",
}
# Where the module of the configured backend lies, before Keras itself could be imported.
BACKEND_CONFIG = "keras.src.backend.config"
# The modules of the operations that `x + y` of symbolic tensors makes.
_OPERATIONS = "keras.src.ops"


def nodes(model: keras.Model) -> Iterator:
    """Yield the nodes of a functional model, each after those that it needs.

    A layer's own nodes would not do: other models over the same layers leave theirs there too.
    """
    # Keras numbers depths from the outputs.
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def run_through_graph(model: keras.Model, inputs, operation_fn: Callable):
    """Return a functional model's outputs, each layer called as `operation_fn(layer)` is."""
    return model._run_through_graph(inputs, operation_fn)


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return all layers inside a layer or model, at any depth."""
    return list(layer._flatten_layers(include_self=False))


def is_operation(layer) -> bool:
    """Return whether a node's layer is an operation on tensors, and no layer."""
    return type(layer).__module__.startswith(_OPERATIONS)
