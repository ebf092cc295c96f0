"""Files of models as users make them: other dtypes, sizes, structures and mixtures of blocks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.keras_iterconv.exporting.test_export_functions import run_onnx


def draw(*shape):
    scales = np.geomspace(4, 0.1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (np.random.default_rng(1).normal(size=shape) * scales).astype(np.float32)


def conv(channels, **settings):
    settings = {"max_unroll": 6, "threshold": 0.6, "step_size": 0.5, **settings}
    return ki.NAISConv2D(channels, **settings)


def stages_and_blocks():
    images = keras.Input((6, 5, 3), name="x")
    x = keras.layers.Conv2D(4, 3, padding="same")(images)
    x = conv(4)(ki.ResidualStage(4, blocks=2, lipschitz_cap=0.9)(x))
    x = ki.ResidualStage(4, blocks=5, tied=True, threshold=0.4, lipschitz_cap=0.6)(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)), draw(5, 6, 5, 3)


def float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        images = keras.Input((6, 5, 3), name="x")
        x = keras.layers.Conv2D(4, 3, padding="same")(images)
        x = keras.layers.GlobalAveragePooling2D()(conv(4)(x))
        x = ki.NAISDense(4, max_unroll=6, threshold=0.1)(x)
        x = ki.Iterate(keras.layers.Dense(4, activation="tanh"), max_unroll=6, stop=0.3)(x)
        return keras.Model(images, x), draw(5, 6, 5, 3).astype(np.float64)
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


def integers():
    tokens = keras.Input((4,), dtype="int32", name="x")
    x = ki.NAISDense(4, max_unroll=6, threshold=1.0)(tokens)
    y = ki.Iterate(keras.layers.Dense(4, activation="tanh"), max_unroll=6, stop=0.3)(tokens)
    return keras.Model(tokens, keras.layers.Concatenate()([x, y])), np.arange(8).reshape(2, 4)


def any_size():
    images = keras.Input((None, None, 3), name="x")
    x = conv(4)(keras.layers.Conv2D(4, 3, padding="same")(images))
    x = ki.NAISConv2D(4, max_unroll=2, tied=False)(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)), draw(3, 7, 4, 3)


@pytest.mark.parametrize("make", [stages_and_blocks, float64, integers, any_size])
def test_values_and_depths_are_those_of_keras(make, tmp_path):
    keras.utils.set_random_seed(0)
    model, batch = make()
    expected = ki.with_depth(model).predict(batch, verbose=0)
    (key,) = set(expected) - {"depth", "status"}
    batch = batch.astype(model.inputs[0].dtype)
    ki.export_onnx(model, tmp_path / "net.onnx")
    found = run_onnx(tmp_path / "net.onnx", {"x": batch})
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-5)


def test_a_block_in_the_update_of_another(tmp_path):
    state = keras.Input((4,))
    inner = ki.NAISDense(4, max_unroll=2)(state)
    update = ki.IterativeModel(state, keras.layers.Dense(4, activation="tanh")(inner))
    vectors = keras.Input((4,), name="x")
    model = keras.Model(vectors, ki.Iterate(update, max_unroll=6)(vectors))
    ki.export_onnx(model, tmp_path / "net.onnx")
    ki.export_saved_model(model, tmp_path / "net")
    batch = draw(5, 4)
    run = tf.saved_model.load(tmp_path / "net").signatures["serving_default"]
    for found in (run_onnx(tmp_path / "net.onnx", {"x": batch}), run(x=tf.constant(batch))):
        np.testing.assert_allclose(found["logits"], model(batch), rtol=1e-4, atol=1e-5)


def test_serve_has_the_structures_of_a_model_of_one_input(tmp_path):
    x = keras.Input((4,), name="x")
    update = keras.layers.Dense(4, activation="tanh")
    outputs = ki.Iterate(update, max_unroll=3, stop=0.1, returns=("states",))(x)
    model = keras.Model({"x": x}, outputs)
    ki.export_saved_model(model, tmp_path / "net")
    batch = {"x": draw(5, 4)}
    loaded = tf.saved_model.load(tmp_path / "net")
    found = loaded.serve({"x": tf.constant(batch["x"])})
    expected = model.predict(batch, verbose=0)
    assert set(found) == {"state", "states"}
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_a_block_of_adaptive_depth_in_an_update_is_refused_by_onnx(tmp_path):
    update = keras.Sequential([ki.NAISDense(4, threshold=0.1, name="inner")])
    model = keras.Sequential([keras.Input((4,)), ki.Iterate(update, stop=0.1, name="outer")])
    with pytest.raises(ValueError, match=r"^A block in the update.*'inner' in 'outer'"):
        ki.export_onnx(model, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    model = keras.Sequential([keras.Input((4,)), ki.NAISDense(4)])
    for export in (ki.export_onnx, ki.export_litert):
        with pytest.raises(FileExistsError, match=r"^`path` must be a new file"):
            export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_guarantees_are_restored_before_an_export(tmp_path):
    x = keras.Input((6, 5, 3), name="x")
    block = ki.ResidualBlock(3, lipschitz_cap=0.5)
    model = ki.IterativeModel(x, keras.layers.GlobalAveragePooling2D()(block(x)))
    for weight in block.trainable_weights:
        weight.assign(weight * 3)
    images = draw(5, 6, 5, 3)
    before = model(images).numpy()
    ki.export_onnx(model, tmp_path / "net.onnx")
    found = run_onnx(tmp_path / "net.onnx", {"x": images})["logits"]
    assert ki.certify(model).holds
    np.testing.assert_allclose(found, model(images), atol=1e-5)
    assert np.abs(found - before).max() > 1e-3
