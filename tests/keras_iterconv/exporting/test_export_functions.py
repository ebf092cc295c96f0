"""Files of any Keras model from user code, against Keras."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import keras_iterconv as ki
from benchmarks import export_matrix
from export.classifier import OnnxClassifier

IMAGES = export_matrix.draw_images(7)
KINDS = list(export_matrix.KINDS)
# Each block in one kind of model, and each kind with at least one block.
CELLS = [(KINDS[n % len(KINDS)], block) for n, block in enumerate(export_matrix.BLOCKS)]


@pytest.mark.parametrize("format", export_matrix.FORMATS)
@pytest.mark.parametrize(("kind", "block"), CELLS)
def test_a_file_answers_as_keras_does(kind, block, format, tmp_path):
    """`python -m benchmarks.export_matrix` does this for all kinds of model with all blocks."""
    model = export_matrix.make_net(kind, block)
    assert export_matrix.check(model, format, tmp_path) == export_matrix.YES
    assert format in documented_formats(kind, block)


def documented_formats(kind, block):
    """Return the formats in a cell of the table of the docs."""
    page = (Path(__file__).parents[3] / "docs/own_export.md").read_text()
    (row,) = re.findall(rf"^\| {re.escape(block)} \|(.*)\|$", page, re.M)
    return row.split("|")[KINDS.index(kind)].strip().split(", ")


def run_onnx(path, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [part.name for part in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.fixture(scope="module")
def net():
    """Return a net of one adaptive block."""
    return export_matrix.make_net("functional", "NAISConv2D, adaptive")


def test_several_inputs_outputs_and_calls_of_one_block(tmp_path):
    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    block = ki.NAISDense(6, max_unroll=7, threshold=0.2, name="shared")
    a, b = block(left), block(keras.layers.Dense(6)(right))
    heads = {
        "a": keras.layers.Dense(3, name="first")(a),
        "b": keras.layers.Dense(2, name="second")(keras.layers.Concatenate()([a, b])),
    }
    model = keras.Model({"left": left, "right": right}, heads)
    feeds = {
        name: np.random.default_rng(n).normal(size=(5, 6)).astype(np.float32)
        for n, name in enumerate(("left", "right"))
    }
    expected = ki.with_depth(model)(feeds)
    ki.export_onnx(model, tmp_path / "net.onnx")
    ki.export_saved_model(model, tmp_path / "net")
    loaded = tf.saved_model.load(tmp_path / "net")
    tensors = {name: tf.constant(value) for name, value in feeds.items()}
    for found in (
        run_onnx(tmp_path / "net.onnx", feeds),
        loaded.signatures["serving_default"](**tensors),
    ):
        for name in ("a", "b"):
            np.testing.assert_allclose(found[name], expected["outputs"][name], atol=1e-5)
        np.testing.assert_array_equal(found["depth"], expected["depth"])
        assert found["depth"].shape == (5, 2)
    assert np.ptp(expected["depth"]) > 0
    assert set(loaded.serve(tensors)) == {"a", "b"}


def test_masked_sequences_of_integers(tmp_path):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    update = keras.layers.Dense(4, activation="tanh")
    x = ki.Iterate(update, max_unroll=12, stop=0.02)(x)
    model = keras.Model(tokens, keras.layers.Dense(2)(x))
    batch = np.array([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]], np.int32)
    ki.export_onnx(model, tmp_path / "net.onnx")
    found, expected = (
        run_onnx(tmp_path / "net.onnx", {"tokens": batch}),
        ki.with_depth(model)(batch),
    )
    np.testing.assert_allclose(found["outputs"], expected["outputs"], atol=1e-5)
    np.testing.assert_array_equal(found["depth"], expected["depth"])


def test_mixed_precision_is_exported_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = export_matrix.make_net("nested", "NAISConv2D, adaptive")
    keras.config.set_dtype_policy("float32")
    plain = export_matrix.make_net("nested", "NAISConv2D, adaptive")
    policies = [layer.dtype_policy for layer in mixed._flatten_layers()]
    ki.export_onnx(mixed, tmp_path / "net.onnx")
    assert [layer.dtype_policy for layer in mixed._flatten_layers()] == policies
    plain.set_weights(mixed.get_weights())
    found, expected = (
        run_onnx(tmp_path / "net.onnx", {"images": IMAGES}),
        ki.with_depth(plain)(IMAGES),
    )
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["depth"], expected["depth"])


def test_an_image_classifier(net, tmp_path):
    path = tmp_path / "net.onnx"
    net.export(path, format="onnx", classes=list("abcd"), mean=[3, 4, 5], std=2)
    classifier = OnnxClassifier(path)
    raw = IMAGES * 2 + np.array([3, 4, 5], np.float32)
    found, expected = classifier.classify(raw), ki.with_depth(net)(IMAGES)
    assert classifier.classes == tuple("abcd")
    np.testing.assert_allclose(found.logits, expected["logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.depth, expected["depth"])
    assert (classifier.threshold, classifier.max_unroll) == (0.6, 9)


@pytest.mark.parametrize("format", export_matrix.FORMATS)
def test_limits_at_run_time_are_clipped_to_those_of_the_block(format, tmp_path):
    model = export_matrix.make_net("functional", "NAISConv2D, untied")
    run = export_matrix.FORMATS[format](model, tmp_path)
    for given, used in ((-3, 1), (0, 1), (9, 5)):
        depth = {"threshold": np.array(1e-6, "f"), "max_unroll": np.array(given, np.int32)}
        assert set(np.asarray(run(IMAGES, depth)["depth"]).flat) == {used}


def test_fixed_inputs_hold_the_settings_of_the_model(net, tmp_path):
    ki.export_onnx(net, tmp_path / "net.onnx", inputs="fixed")
    file = onnx.load(tmp_path / "net.onnx")
    assert [part.name for part in file.graph.input] == ["images"]
    assert json.loads({p.key: p.value for p in file.metadata_props}["threshold"]) == 0.6
    found = run_onnx(tmp_path / "net.onnx", {"images": IMAGES})
    np.testing.assert_array_equal(found["depth"], ki.with_depth(net)(IMAGES)["depth"])


def test_required_inputs_have_no_defaults(net, tmp_path):
    ki.export_onnx(net, tmp_path / "net.onnx", inputs="required")
    file = onnx.load(tmp_path / "net.onnx")
    inputs = [part.name for part in file.graph.input]
    assert inputs == ["images", "threshold", "max_unroll"]
    assert not {constant.name for constant in file.graph.initializer} & set(inputs)
    feeds = {"threshold": np.array(0.6, np.float32), "max_unroll": np.array(9, np.int32)}
    found = run_onnx(tmp_path / "net.onnx", {"images": IMAGES, **feeds})
    np.testing.assert_array_equal(found["depth"], ki.with_depth(net)(IMAGES)["depth"])
    feeds["max_unroll"] = np.array(2, np.int32)
    assert run_onnx(tmp_path / "net.onnx", {"images": IMAGES, **feeds})["depth"].max() == 2


def test_a_model_with_depth_is_exported_as_the_one_inside(net, tmp_path):
    ki.with_depth(net).export(tmp_path / "net.onnx", format="onnx")
    found = run_onnx(tmp_path / "net.onnx", {"images": IMAGES})
    assert list(found) == ["logits", "depth", "status"]


def test_a_saved_model_without_blocks_and_standardised_inputs(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(1)])
    ki.export_saved_model(model, tmp_path / "net", mean=2.0, std=[1, 2, 3, 4])
    signatures = tf.saved_model.load(tmp_path / "net").signatures
    assert list(signatures) == ["serving_default"]
    raw = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = signatures["serving_default"](image=tf.constant(raw))
    assert set(found) == {"outputs"}
    np.testing.assert_allclose(found["outputs"], model((raw - 2) / [1, 2, 3, 4]), rtol=1e-5)


class Length(keras.layers.Layer):
    """A layer of an operation that ONNX has not."""

    def call(self, inputs):
        return tf.math.reduce_euclidean_norm(inputs, axis=1, keepdims=True)


class Inside(keras.layers.Layer):
    """A layer that calls a block in a function of its own."""

    def __init__(self):
        super().__init__()
        self.block = ki.NAISDense(4, name="inner")
        self.run = tf.function(self.block)

    def build(self, shape):
        self.block.build(shape)

    def call(self, inputs):
        return self.run(inputs)


def dense_net(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,), name="x"), *layers])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: keras.layers.Dense(3), {}, r"^`model` must be a Keras model"),
        (lambda: keras.Sequential([ki.NAISDense(3)]), {}, r"^`model` must be built"),
        (
            lambda: dense_net(ki.NAISDense(4, threshold=0.1, solver="anderson", activation="tanh")),
            {},
            r"with `solver=\"picard\"`; where both converge",
        ),
        (
            lambda: dense_net(ki.Iterate(keras.layers.Dense(4), returns=("states",), name="block")),
            {},
            r"returns=\('states',\); make the model",
        ),
        (lambda: dense_net(Length()), {}, r"operations that ONNX has.*'EuclideanNorm'"),
        (
            lambda: dense_net(Inside()),
            {},
            r"must call all its blocks itself.*whose block 'inside/inner'",
        ),
        (lambda: dense_net(ki.NAISDense(4)), {"inputs": "none"}, r"^`inputs` must be one of"),
        (lambda: dense_net(ki.NAISDense(4)), {"mean": [1, 2]}, r"^`mean` must be a finite number"),
        (lambda: dense_net(ki.NAISDense(4)), {"std": 0}, r"^`std` must be a positive finite"),
        (lambda: dense_net(ki.NAISDense(4)), {"mean": "x"}, r"^`mean` must be a finite number"),
        (lambda: dense_net(ki.NAISDense(4)), {"classes": "abcd"}, r"^`classes` must be a list"),
        (lambda: dense_net(ki.NAISDense(4)), {"classes": ["a"]}, r"^`classes` must name each"),
        (lambda: dense_net(ki.NAISDense(4)), {"classes": list("abcd")}, r"needs a model of images"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_a_file_is_written(
    make, arguments, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        ki.export_onnx(make(), tmp_path / "net.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_saved_model_has_each_weight_once(tmp_path):
    model = export_matrix.make_net("nested", "ResidualStage, capped")
    ki.export_saved_model(model, tmp_path / "net")
    stored = tf.train.load_checkpoint(tmp_path / "net" / "variables" / "variables")
    shapes = stored.get_variable_to_shape_map()
    kernels = [name for name, shape in shapes.items() if shape == [3, 3, 3, 6, 6]]
    assert len(kernels) == 2, shapes


def test_names_that_clash_are_refused(tmp_path):
    inputs = keras.Input((4,), name="threshold")
    model = keras.Model(inputs, ki.NAISDense(4, threshold=0.1)(inputs))
    with pytest.raises(ValueError, match=r"different names.*Received: \['threshold'\]"):
        ki.export_saved_model(model, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_nothing_that_a_user_had_is_lost(tmp_path, monkeypatch):
    model = dense_net(ki.NAISDense(4, threshold=0.1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="a new or empty folder, or a SavedModel"):
        ki.export_saved_model(model, tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="must lie in an existing folder"):
        ki.export_onnx(model, tmp_path / "none" / "net.onnx")
    for path in (tmp_path / "net", tmp_path / "net.onnx"):
        path.suffix or path.mkdir()
        for _ in range(2):
            (ki.export_onnx if path.suffix else ki.export_saved_model)(model, path)
    file = (tmp_path / "net.onnx").read_bytes()
    full = OSError(28, "No space left on device")

    def fail(*args):
        raise full

    monkeypatch.setattr(onnx, "save", fail)
    monkeypatch.setattr(tf.saved_model, "save", fail)
    for export, name in ((ki.export_onnx, "net.onnx"), (ki.export_saved_model, "net")):
        with pytest.raises(OSError, match="No space left"):
            export(model, tmp_path / name)
    assert (tmp_path / "net.onnx").read_bytes() == file
    assert (tmp_path / "net" / "saved_model.pb").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "net", "net.onnx"]
