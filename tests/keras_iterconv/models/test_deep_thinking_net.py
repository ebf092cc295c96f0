"""The net for sequences: any length, padding, and its training from any depth."""

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.models.deep_thinking_net import PADDING
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS

LENGTHS = (5, 24, 9, 17)


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    return ki.create_model(
        "deep_thinking", (24, 1, 1), 2, filters=8, max_unroll=40, threshold=0.01, training_unroll=9
    )


@pytest.fixture(scope="module")
def padded():
    rng = np.random.default_rng(0)
    images = np.full((4, 24, 1, 1), PADDING, np.float32)
    for n, length in enumerate(LENGTHS):
        images[n, :length] = rng.choice([-1, 1], (length, 1, 1))
    return images


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_padded_sequence_is_answered_as_it_is_alone(net, padded, mode):
    run = ki.with_depth(net)
    together = (tf.function(run) if mode == "graph" else run)(padded)
    assert len(set(together["depth"].numpy().ravel())) > 1
    for n, length in enumerate(LENGTHS):
        alone = run(padded[n : n + 1, :length])
        assert alone["depth"][0] == together["depth"][n]
        assert alone["status"][0] == together["status"][n]
        np.testing.assert_allclose(
            together["outputs"][n, :length], alone["outputs"][0], rtol=1e-4, atol=1e-6
        )


def test_onnx_runtime_answers_padded_sequences_alike(net, padded):
    converted = to_onnx(fold(net), Preprocessing((0.0,), (1.0,)), {}, TASKS["labels_per_position"])
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"image": padded}), strict=True))
    expected = ki.with_depth(net)(padded)
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    np.testing.assert_array_equal(found["status"], expected["status"])
    for n, length in enumerate(LENGTHS):
        np.testing.assert_allclose(
            found["logits"][n, :length], expected["outputs"][n, :length], rtol=1e-4, atol=1e-5
        )


def test_half_of_a_batch_goes_on_from_a_state_without_gradient(net, padded, monkeypatch):
    layer = net.get_layer("thinking")
    pixels = tf.constant(np.random.default_rng(2).choice([-1.0, 1.0], (4, 10, 1)), tf.float32)
    monkeypatch.setattr(layer, "_draw", lambda low, high: 3 if low == 0 else 2)

    def gradients(run):
        with tf.GradientTape() as tape:
            state = run()
            loss = tf.reduce_sum(tf.sin(state))
        return state, tape.gradient(loss, [w.value for w in layer.trainable_variables])

    def by_hand():
        state = start = layer.initial_state(pixels)
        for _ in range(layer.training_unroll):
            state = layer.update([state, pixels])
        whole, state = state[:2], start[2:]
        for _ in range(3):
            state = layer.update([state, pixels[2:]])
        state = tf.stop_gradient(state)
        for _ in range(2):
            state = layer.update([state, pixels[2:]])
        return tf.concat([whole, state], axis=0)

    found, of_layer = gradients(lambda: layer(pixels, training=True))
    wanted, expected = gradients(by_hand)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    for a, b in zip(of_layer, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max())


def test_the_drawn_numbers_cover_their_range(net):
    layer = net.get_layer("thinking")
    assert {int(layer._draw(1, 4)) for _ in range(60)} == {1, 2, 3}


def test_a_keras_file_keeps_the_net(net, padded, tmp_path):
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(loaded(padded), net(padded))
    assert type(loaded.get_layer("thinking")) is type(net.get_layer("thinking"))


def test_an_image_is_a_sequence_of_its_pixels():
    model = ki.create_model("deep_thinking", (3, 4, 2), 5, filters=4, max_unroll=2)
    assert model(np.zeros((2, 3, 4, 2), np.float32)).shape == (2, 12, 5)


def test_padding_counts_in_no_loss_and_no_metric(net, padded):
    labels = np.zeros((4, 24), np.int32)
    for n, length in enumerate(LENGTHS):
        labels[n, :length] = net(padded[n : n + 1, :length]).numpy()[0].argmax(-1)
        labels[n, length:] = 1 - net(padded).numpy()[n, length:].argmax(-1)
    task = TASKS["labels_per_position"]
    net.compile("sgd", task.make_loss(), metrics=task.make_metrics())
    found = net.evaluate(padded, labels, batch_size=4, verbose=0, return_dict=True)
    assert found["accuracy"] == 1
    losses = [
        task.make_loss(reduction="none")(labels[n, :length], net(padded[n : n + 1, :length])[0])
        for n, length in enumerate(LENGTHS)
    ]
    assert found["loss"] == pytest.approx(np.mean(np.concatenate(losses)), rel=1e-5)
