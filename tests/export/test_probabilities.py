"""Exported files of nets that end in a softmax or a sigmoid, against these nets."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.exported_function import ExportedFunction
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.image_classifier import ImageClassifier, as_logits
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.exporting.saved_model import write_saved_model
from keras_iterconv.tasks import TASKS

METADATA = {"model": "own", "dataset": "none"}
HEADS = {
    "activation": (lambda x: keras.layers.Dense(4, activation="softmax")(x), "classes"),
    "layer": (lambda x: keras.layers.Softmax()(keras.layers.Dense(4)(x)), "classes"),
    "sigmoid": (lambda x: keras.layers.Dense(4, activation="sigmoid")(x), "label_sets"),
}


def make_net(head):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3, 1))
    state = ki.NAISDense(6, max_unroll=8, threshold=0.05)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, head(state))


def run_onnx(model, images, folder, preprocessing, task):
    path = folder / "net.onnx"
    onnx.save(to_onnx(fold(model), preprocessing, METADATA, TASKS[task]), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images}), strict=True))


def run_saved_model(model, images, folder, preprocessing, task):
    write_saved_model(fold(model), folder / "net", preprocessing, TASKS[task])
    loaded = tf.saved_model.load(folder / "net")
    outputs = loaded.signatures["serving_default"](image=tf.constant(images))
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.parametrize("run", [run_onnx, run_saved_model], ids=["onnx", "saved_model"])
@pytest.mark.parametrize("head", HEADS)
def test_probabilities_stay_what_they_are(head, run, draw_raw, preprocessing, tmp_path):
    build, task = HEADS[head]
    model, images = make_net(build), draw_raw(5, (4, 3, 1))
    images[3] = np.nan
    found = run(model, images, tmp_path, preprocessing, task)
    expected = ki.with_depth(model)((images - 3) / 2)
    good = [0, 1, 2, 4]
    right = expected["outputs"].numpy()[good]
    np.testing.assert_allclose(found["probabilities"][good], right, atol=1e-5)
    logits = np.float64(found["logits"])[good]
    if task == "label_sets":
        again = 1 / (1 + np.exp(-logits))
    else:
        again = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(again, right, atol=1e-5)
    assert np.ptp(right) > 0.1
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    np.testing.assert_array_equal(found["status"], expected["status"])
    assert np.isnan(found["logits"][3]).all()


@pytest.mark.parametrize("run", [run_onnx, run_saved_model], ids=["onnx", "saved_model"])
@pytest.mark.parametrize("task", ["labels_per_position", "regression"])
def test_the_outputs_of_other_tasks(task, run, draw_raw, preprocessing, tmp_path):
    model = make_net(lambda x: keras.layers.Reshape((5, 4))(keras.layers.Dense(20)(x)))
    images = draw_raw(5, (4, 3, 1))
    found = run(model, images, tmp_path, preprocessing, task)
    expected = {
        name: value.numpy() for name, value in ki.with_depth(model)((images - 3) / 2).items()
    }
    outputs = expected.pop("outputs")
    if task == "regression":
        expected["outputs"] = outputs
    else:
        powers = np.exp(np.float64(outputs))
        expected["logits"] = outputs
        expected["probabilities"] = powers / powers.sum(axis=-1, keepdims=True)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
    assert np.ptp(outputs) > 0.1
    assert np.ptp(expected["depth"]) > 0


@pytest.mark.parametrize(
    ("head", "task", "message"),
    [
        (HEADS["sigmoid"][0], "classes", "in logits or in a softmax.*which ends in a sigmoid"),
        (HEADS["layer"][0], "label_sets", "in logits or in a sigmoid.*which ends in a softmax"),
        (
            lambda x: keras.layers.Lambda(tf.nn.softmax)(x),
            "classes",
            "in a layer of unknown outputs",
        ),
    ],
)
def test_outputs_of_another_kind_are_refused(head, task, message, preprocessing, tmp_path):
    model = make_net(head)
    with pytest.raises(ValueError, match=message):
        to_onnx(model, preprocessing, METADATA, TASKS[task])
    with pytest.raises(ValueError, match=message):
        write_saved_model(model, tmp_path / "net", preprocessing, TASKS[task])
    assert not (tmp_path / "net").exists()


def test_a_stage_runs_the_schedule_of_its_model(draw_raw, preprocessing):
    inputs = keras.Input((4, 3, 1))
    state = keras.layers.Flatten()(ki.ResidualStage(1, 3)(inputs, schedule=[2, 0]))
    model = keras.Model(inputs, keras.layers.Dense(4)(state))
    images = draw_raw(5, (4, 3, 1))
    classifier = ImageClassifier(model, preprocessing, TASKS["classes"])
    found = ExportedFunction(model, classifier)([tf.constant(images)])
    np.testing.assert_allclose(found["logits"], model((images - 3) / 2), rtol=1e-4, atol=1e-5)
    assert set(np.ravel(found["depth"])) == {2}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_certain_answers_have_finite_logits(activation):
    logits = as_logits(tf.constant([[1.0, 0.0, 0.0], [np.nan, 0.0, 1.0]]), activation).numpy()
    assert np.isfinite(logits[0]).all()
    assert logits[0, 0] > logits[0, 1] == logits[0, 2]
    assert np.isnan(logits[1, 0])
