"""A canary for each private symbol of Keras: what breaks where a new version changes it."""

import ast
import inspect
import re
import sys
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv._support import private_keras

PACKAGE = Path(ki.__file__).parent


@pytest.fixture
def model():
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.layers.Dense(3, name="inner")], name="outer")
    return keras.Model(inputs, inner(inputs) + inputs)


def test_nodes_of_a_model_in_order(model):
    """Else: `with_depth`, `certify`, `measure_indices` and exporters read no graph."""
    layers = [type(node.operation).__name__ for node in private_keras.nodes(model)]
    assert layers == ["InputLayer", "Sequential", "Add"]
    *_, last = private_keras.nodes(model)
    assert [tensor.shape for tensor in last.input_tensors] == [(None, 3)] * 2
    assert last.outputs[0] is model.outputs[0]
    assert last.arguments.kwargs == {}


def test_a_walk_through_the_graph(model):
    """Else: exported files and `find_not_finite` cannot replace a block's call."""
    x = np.ones((2, 3), np.float32)
    seen = []

    def operation(layer):
        seen.append(layer.name)
        return layer

    np.testing.assert_array_equal(private_keras.run_through_graph(model, x, operation), model(x))
    assert "outer" in seen


def test_a_layer_is_built_outside_of_a_trace():
    """Else: what the `build` of an update of `Iterate` assigns is lost."""

    class Halved(keras.layers.Layer):
        def build(self, first_shape, second_shape):
            self.scale = self.add_weight(shape=first_shape[1:] + second_shape[1:], name="scale")
            self.scale.assign(self.scale * 0 + 0.5)

        def call(self, first, second):
            return first @ self.scale + second

    layer = Halved(name="halved")
    private_keras.build_for(layer, keras.KerasTensor((None, 2)), keras.KerasTensor((None, 3)))
    np.testing.assert_array_equal(layer.scale, np.full((2, 3), 0.5))
    assert layer.scale.path == "halved/scale"
    kept = layer.scale
    private_keras.build_for(layer, keras.KerasTensor((None, 2)), keras.KerasTensor((None, 3)))
    assert layer.scale is kept


def test_a_call_can_be_repeated_in_evaluation():
    """Else: chains of blocks cannot run."""
    inputs = keras.Input((3,))
    norm = keras.layers.BatchNormalization()
    *_, node = private_keras.nodes(keras.Model(inputs, norm(inputs, training=True)))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    (got,) = private_keras.call_again(node, {id(inputs): x})
    np.testing.assert_allclose(got, x / np.sqrt(1 + norm.epsilon), rtol=1e-5)
    *_, node = private_keras.nodes(keras.Model(inputs, 2 * inputs))
    np.testing.assert_allclose(private_keras.call_again(node, {id(inputs): x}), [2 * x])


def test_a_subclass_stays_without_the_bases_of_functional_models():
    """Else: `class Net(IterativeModel)` raises TypeError, or forgets its arguments."""

    class Base(keras.Model, metaclass=private_keras.FunctionalOrSubclassed):
        def __new__(cls, *args, **kwargs):
            return keras.layers.Layer.__new__(cls, *args, **kwargs)

        @private_keras.keeps_default
        def get_config(self):
            return super().get_config()

    class Net(Base):
        def __init__(self, units):
            super().__init__()
            self.dense = keras.layers.Dense(units)

        def call(self, inputs):
            return self.dense(inputs)

    inputs = keras.Input((3,))
    functional = Base(inputs, keras.layers.Dense(2)(inputs))
    assert hasattr(functional, "operations")
    net = Net(4)
    assert isinstance(net, Base)
    assert not hasattr(net, "operations")
    assert net(np.ones((2, 3), np.float32)).shape == (2, 4)
    assert net.get_config()["units"] == 4


def test_layers_at_any_depth(model):
    """Else: guarantees of nested blocks do not hold, and nothing says so."""
    names = [layer.name for layer in private_keras.layers_within(model)]
    assert {"inner", "outer"} <= set(names)
    assert model.name not in names


def test_operations_are_no_layers(model):
    """Else: certificates know no sum of tensors."""
    kinds = {type(n.operation).__name__: n.operation for n in private_keras.nodes(model)}
    assert private_keras.is_operation(kinds["Add"])
    assert not private_keras.is_operation(kinds["Sequential"])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_masks_of_tensors(mode):
    """Else: `Iterate` updates masked positions, and exported files do."""
    seen = []

    class Reads(keras.layers.Layer):
        supports_masking = True

        def call(self, inputs, mask=None):
            seen.append(mask is not None)
            return inputs

    def run(x):
        x = tf.identity(x)
        assert private_keras.mask_of([x]) is None
        private_keras.set_mask(x, x[..., 0] > 0)
        assert private_keras.mask_of({"state": x}) is not None
        return Reads()(x)

    (tf.function(run) if mode == "graph" else run)(tf.ones([2, 3, 4]))
    assert all(seen)


def test_a_layer_inside_another_and_in_the_model_stays_one(tmp_path):
    """Else: a file with a readout that is the model's head cannot be loaded."""
    head = keras.layers.Dense(2)
    layer = ki.Iterate(keras.layers.Dense(3), 2, ki.stop.StablePrediction(head))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, head(layer(inputs)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].readout is loaded.layers[2]
    # Outside of a file there is nothing to mark.
    assert "shared_object_id" not in private_keras.serialize_shared(head)


def test_the_module_of_the_backend():
    """Else: a missing backend ends in a message of another package."""
    assert sys.modules[private_keras.BACKEND_CONFIG].backend() == "tensorflow"
    assert private_keras.BACKEND_CONFIG in (PACKAGE / "_environment.py").read_text()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_maybe_symbolic_build", ["self", "iterator", "data_batch"]),
        ("_make_function", ["self", "step_function"]),
        ("_run_through_graph", ["self", "inputs", "operation_fn", "call_fn"]),
        ("_moments", ["self", "inputs", "mask"]),
    ],
)
def test_overridden_methods(method, parameters, model):
    """Else: the override is never called, or with other arguments."""
    ((owner, _),) = [key for key in private_keras.OVERRIDDEN if key[1] == method]
    # Keras makes a class of its own of functional models.
    owner = type(model) if owner is keras.Model else owner
    assert list(inspect.signature(getattr(owner, method)).parameters) == parameters


def test_nothing_else_private_is_used():
    """Names with an underscore of other objects than `self`, in files that use Keras's."""
    ours = {name for _, name in private_keras.OVERRIDDEN}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "private_keras.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and str(node.value).startswith("keras.src"):
                found.add((path.name, node.value))
            if isinstance(node, ast.Attribute) and node.attr in (
                "_flatten_layers", "_nodes_by_depth", "_inbound_nodes", "_keras_history", "_layers",
                "_tracker", *ours,
            ):  # fmt: skip
                found.add((path.name, node.attr))
    assert found == {
        # What is called in an override of the same name.
        ("trainer.py", "_make_function"),
        ("trainer.py", "_maybe_symbolic_build"),
        ("trainer.py", "_run_through_graph"),
        ("normalization.py", "_moments"),
        # Read before Keras can be imported, and names that files hold.
        ("_environment.py", "keras.src.backend.config"),
        ("keras_files.py", "keras.src.models.functional"),
        ("keras_files.py", "keras.src.ops.numpy"),
    }


@pytest.mark.parametrize("package", ["keras", "tensorflow"])
def test_versions_have_an_upper_bound(package):
    names = re.compile(rf"{package}[<>=]")
    (requirement,) = filter(names.match, metadata.requires("keras-iterconv"))
    assert "<" in requirement


def test_variables_are_read_in_another_dtype():
    """Else: models of float64 or half precision cannot be exported in float32."""
    layer = keras.layers.Dense(2, dtype="float64")
    layer.build((None, 3))
    with private_keras.autocast_to("float32"):
        assert layer.kernel.value.dtype == tf.float32
    assert layer.kernel.value.dtype == tf.float64
