"""LiteRT files beyond the matrix of `test_export_functions`, run by `ai-edge-litert`."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.litert import METADATA_FILE

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra `litert`")


def run(path, feeds, signature="serving_default"):
    return interpreter.Interpreter(str(path)).get_signature_runner(signature)(**feeds)


def dense_net(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,), name="x"), *layers])


def spread(count):
    """Return vectors of different lengths, so that their depths differ."""
    vectors = np.random.default_rng(count).normal(size=(count, 6))
    return (vectors * np.geomspace(3, 0.1, count)[:, None]).astype(np.float32)


RULES = {
    "relative": lambda: ki.stop.UpdateNorm(0.03, relative=True),
    "prediction": lambda: ki.stop.StablePrediction(keras.layers.Dense(4), 3),
    "divergence": lambda: ki.stop.ReadoutDivergence(keras.layers.Dense(4), 0.003),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_stops_samples_as_in_keras(rule, tmp_path):
    update = keras.layers.Dense(6, activation="tanh")
    model = dense_net(ki.Iterate(update, max_unroll=30, min_unroll=3, stop=RULES[rule]()))
    ki.export_litert(model, tmp_path / "net.tflite")
    found, expected = (
        run(tmp_path / "net.tflite", {"x": spread(7)}),
        ki.with_depth(model)(spread(7)),
    )
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    np.testing.assert_array_equal(found["status"], expected["status"])
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    assert np.ptp(found["depth"]) > 0


def test_masked_sequences_of_integers_of_any_length(tmp_path):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    x = ki.Iterate(keras.layers.Dense(4, activation="tanh"), max_unroll=12, stop=0.02)(x)
    model = keras.Model(tokens, {"a": keras.layers.Dense(2)(x), "b": keras.layers.Dense(1)(x)})
    ki.export_litert(model, tmp_path / "net.tflite")
    for batch in ([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]], [[8, 1]]):
        tokens = np.array(batch, np.int32)
        found, expected = (
            run(tmp_path / "net.tflite", {"tokens": tokens}),
            ki.with_depth(model)(tokens),
        )
        for name in ("a", "b"):
            np.testing.assert_allclose(found[name], expected["outputs"][name], atol=1e-5)
        np.testing.assert_array_equal(found["depth"], expected["depth"])


def test_a_block_may_return_its_readout(tmp_path):
    readout = keras.layers.Dense(4)
    stop = ki.stop.ReadoutDivergence(readout, 0.01)
    update = keras.layers.Dense(6, activation="tanh")
    x = keras.Input((6,), name="x")
    outputs = ki.Iterate(update, max_unroll=9, stop=stop, returns=("readout",))(x)
    model = keras.Model(x, [outputs["state"], outputs["readout"]])
    ki.export_litert(model, tmp_path / "net.tflite")
    found, expected = (
        run(tmp_path / "net.tflite", {"x": spread(3)}),
        ki.with_depth(model)(spread(3)),
    )
    np.testing.assert_array_equal(found.pop("depth"), expected["depth"])
    np.testing.assert_array_equal(found.pop("status"), expected["status"])
    state, scores = expected["outputs"]
    by_size = {value.shape[1]: value for value in found.values()}
    np.testing.assert_allclose(by_size[6], state, atol=1e-5)
    np.testing.assert_allclose(by_size[4], scores, atol=1e-5)


def test_samples_that_are_not_finite_are_seen_and_leave_the_others_alone(tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input((5, 4, 2), name="images")
    x = ki.NAISConv2D(3, max_unroll=9, threshold=0.3, initial_state="zeros")(images)
    x = ki.NAISConv2D(3, max_unroll=9, threshold=0.3)(x)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    ki.export_litert(model, tmp_path / "net.tflite")
    batch = np.random.default_rng(0).normal(size=(4, 5, 4, 2)).astype(np.float32)
    whole = run(tmp_path / "net.tflite", {"images": batch})
    batch[1, 2, 3, 1], batch[2, 0, 0, 0] = np.nan, np.inf
    found, expected = run(tmp_path / "net.tflite", {"images": batch}), ki.with_depth(model)(batch)
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    np.testing.assert_array_equal(found["status"], expected["status"])
    assert found["status"][:, 0].tolist() == [0, 2, 2, 0]
    for name in ("logits", "depth", "status"):
        np.testing.assert_array_equal(found[name][[0, 3]], whole[name][[0, 3]])


def test_both_signatures_share_the_weights(tmp_path):
    model = dense_net(keras.layers.Dense(300), ki.NAISDense(300, threshold=0.1))
    ki.export_litert(model, tmp_path / "net.tflite")
    # A second copy would be 360 kB.
    assert (tmp_path / "net.tflite").stat().st_size < 4 * model.count_params() + 60_000
    runner = interpreter.Interpreter(str(tmp_path / "net.tflite"))
    signatures = runner.get_signature_list()
    assert set(signatures) == {"serving_default", "with_depth"}
    assert set(signatures["with_depth"]["inputs"]) == {"x", "threshold", "max_unroll"}
    (x,) = runner.get_signature_runner("serving_default").get_input_details().values()
    assert x["shape_signature"].tolist() == [-1, 6]


def test_an_image_classifier_has_metadata_that_zip_reads(tmp_path):
    images = keras.Input((5, 4, 3))
    x = ki.NAISConv2D(3, max_unroll=6, threshold=0.5, tied=False)(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = ki.IterativeModel(images, keras.layers.Dense(2, activation="softmax")(x), name="pets")
    model.export(tmp_path / "net.tflite", format="litert", classes=["cat", "dog"], mean=9, std=4)
    raw = np.random.default_rng(0).uniform(0, 255, (3, 5, 4, 3)).astype(np.float32)
    found = run(tmp_path / "net.tflite", {"image": raw})
    expected = ki.with_depth(model)((raw - 9) / 4)
    np.testing.assert_allclose(found["probabilities"], expected["outputs"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    with zipfile.ZipFile(tmp_path / "net.tflite") as archive:
        metadata = json.loads(archive.read(METADATA_FILE))
    assert json.loads(metadata["classes"]) == ["cat", "dog"]
    assert {name: json.loads(metadata[name]) for name in ("threshold", "max_unroll", "scale")} == {
        "threshold": 0.5, "max_unroll": 6, "scale": 255,
    }  # fmt: skip
    assert (metadata["model"], metadata["most_updates"]) == ("pets", "6")


class Length(keras.layers.Layer):
    """A layer of an operation that LiteRT has not."""

    def call(self, inputs):
        return tf.math.reduce_euclidean_norm(inputs, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Length(name="length"),
            r"that LiteRT has.*'EuclideanNorm' in '.*length",
        ),
        (
            lambda: ki.NAISDense(6, threshold=0.1, solver="anderson", activation="tanh", name="b"),
            r"`solver=\"picard\"`.*Received: 'b' with solver='anderson'",
        ),
        (
            lambda: ki.Iterate(keras.layers.Dense(6), returns=("states",), name="b"),
            r"must not return their states.*'b' with returns=\('states',\)",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_before_a_file_is_written(
    make, message, tmp_path, capfd
):
    with pytest.raises(ValueError, match=message):
        ki.export_litert(dense_net(make()), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())
    # The converter's own complaint would be a page long.
    assert "error:" not in capfd.readouterr().err


def test_a_failed_conversion_is_one_error_and_the_old_file_stays(tmp_path, monkeypatch):
    file = tmp_path / "net.tflite"
    file.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise RuntimeError("no space\nand a page more")

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", fail)
    with pytest.raises(ValueError, match=r"'sequential\w*' cannot be .*: no space\. "):
        ki.export_litert(dense_net(ki.NAISDense(6)), file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
