"""Layers of Keras in exported files, and what the names of inputs and outputs say."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import keras_iterconv as ki

X = (np.random.default_rng(0).normal(size=(7, 6)) * np.geomspace(4, 0.1, 7)[:, None]).astype("f")


def net(*layers, name="x"):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,), name=name), *layers])


def run(path, **feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [part.name for part in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7)),
        lambda: keras.layers.Normalization(mean=2.0, variance=3.0, axis=None),
        lambda: keras.layers.Dense(200, "gelu"),
        lambda: keras.layers.Dense(6, "celu"),
        lambda: ki.Iterate(keras.layers.Dense(6, "gelu"), max_unroll=5, stop=0.1),
    ],
    ids=["Normalization", "Normalization of all", "gelu", "celu", "gelu in an update"],
)
def test_a_layer_in_onnx(layer, tmp_path):
    model = net(layer(), keras.layers.Dense(3))
    ki.export_onnx(model, tmp_path / "net.onnx")
    (found, *_) = run(tmp_path / "net.onnx", x=X).values()
    np.testing.assert_allclose(found, model(X), rtol=1e-4, atol=1e-5)


def test_a_constant_too_large_for_the_graph_is_kept(tmp_path):
    mean = np.linspace(-1, 1, 300)
    model = keras.Sequential(
        [keras.Input((300,), name="x"), keras.layers.Normalization(mean=mean, variance=mean**2 + 1)]
    )
    ki.export_onnx(model, tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)
    (found,) = run(tmp_path / "net.onnx", x=x).values()
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(mean**2 + 1), rtol=1e-4, atol=1e-6)


def test_the_batch_has_one_name(tmp_path):
    ki.export_onnx(net(ki.NAISDense(6, threshold=0.1)), tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    values = [graph.input[0], *graph.output]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in values} == {"N"}


def test_thresholds_of_different_rules_are_different_inputs(tmp_path):
    halting = ki.stop.Halting(keras.layers.Dense(1), threshold=0.5)
    model = net(
        ki.NAISDense(6, max_unroll=9, threshold=0.5, name="norm"),
        ki.Iterate(keras.layers.Dense(6, "tanh"), max_unroll=9, stop=halting, name="halting"),
    )
    ki.export_onnx(model, tmp_path / "net.onnx")
    names = {value.name for value in onnx.load(tmp_path / "net.onnx").graph.input}
    assert {"threshold/norm", "threshold/halting"} < names


class ByPython(keras.layers.Layer):
    """A layer that calls NumPy at run time."""

    def call(self, inputs):
        return tf.ensure_shape(tf.numpy_function(np.tanh, [inputs], tf.float32), inputs.shape)


@pytest.mark.parametrize(
    ("export", "model", "message"),
    [
        (ki.export_saved_model, lambda: net(ByPython()), r"no Python function.*\['PyFunc"),
        (ki.export_litert, lambda: net(ByPython()), r"no Python function"),
        (
            ki.export_litert,
            lambda: net(ki.Iterate(keras.layers.Dense(6), returns=("states",))),
            r"^Blocks must not return their states",
        ),
        (ki.export_onnx, lambda: net(keras.layers.Dense(6), name="logits"), r"different names"),
        (
            ki.export_saved_model,
            lambda: net(
                *(
                    ki.NAISDense(6, threshold=threshold, name=name)
                    for name, threshold in (("a_b", 0.1), ("a-b", 0.2))
                )
            ),
            r"different names.*\['max_unroll_a_b', 'threshold_a_b'\]",
        ),
    ],
)
def test_refusals(export, model, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(model(), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_quantisation_takes_other_numbers_and_refuses_other_shapes(tmp_path):
    ki.export_onnx(net(ki.NAISDense(6, threshold=0.1)), tmp_path / "net.onnx")
    report = ki.quantize_onnx(tmp_path / "net.onnx", tmp_path / "int8.onnx", [np.float64(X)])
    assert report.samples == 7
    for wrong in (X[0], X[:, :5], np.array(["a"])):
        with pytest.raises(ValueError, match=r"numbers of the shape \[None, 6\]"):
            ki.quantize_onnx(tmp_path / "net.onnx", tmp_path / "none.onnx", [wrong])
    assert not (tmp_path / "none.onnx").exists()
