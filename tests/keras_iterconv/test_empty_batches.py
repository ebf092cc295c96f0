"""Batches of no samples: shapes, gradients of zero, statistics that stay, and replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.builders import two_replicas

IMAGE = (4, 4, 3)
LAYERS = {
    "conv": lambda: ki.NAISConv2D(3, max_unroll=2),
    "conv, other channels": lambda: ki.NAISConv2D(5, max_unroll=2, initial_state="zeros"),
    "conv, untied": lambda: ki.NAISConv2D(
        5, max_unroll=2, initial_state="zeros", tied=False, threshold=0.1
    ),
    "conv, implicit": lambda: ki.NAISConv2D(
        5, initial_state="zeros", activation="tanh", gradient="implicit"
    ),
    "conv, frozen": lambda: ki.NAISConv2D(5, initial_state="zeros", gradient="frozen"),
    "conv, anderson": lambda: ki.NAISConv2D(
        5, initial_state="zeros", activation="tanh", threshold=0.1, solver="anderson"
    ),
    "stage": lambda: ki.ResidualStage(3, 2),
    "stage, recompute": lambda: ki.ResidualStage(3, 2, "stage_input", gradient="recompute"),
    "stage, capped": lambda: ki.ResidualStage(3, 2, lipschitz_cap=0.9),
    "block, capped": lambda: ki.ResidualBlock(3, lipschitz_cap=0.9),
}
NETS = {
    "nais_adaptive": {"filters": (4, 8), "blocks": 1},
    "nais_mnist": {"units": 5},
    "icr_w8": {"width": 3, "blocks": 1},
    "resnet54": {"filters": (4, 8), "blocks": 1},
    "resnet_bn": {"units": 5, "max_unroll": 2},
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_maps_no_samples_to_none_and_gets_gradients_of_zero(name, mode):
    layer = LAYERS[name]()
    layer.build((None, *IMAGE))
    before = layer.get_weights()

    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, *layer.trainable_variables])

    evaluate = layer
    if mode == "graph":
        signature = [tf.TensorSpec((None, *IMAGE))]
        differentiate = tf.function(differentiate, input_signature=signature)
        evaluate = tf.function(evaluate, input_signature=signature)
    none = tf.zeros((0, *IMAGE))
    shape = (0, *layer.compute_output_shape((None, *IMAGE))[1:])
    assert evaluate(none).shape == shape
    y, gradients = differentiate(none)
    assert y.shape == shape
    for gradient, weight in zip(gradients[1:], layer.trainable_variables, strict=True):
        # Without samples nothing depends on the weights, which an eager tape sees.
        if gradient is not None:
            np.testing.assert_array_equal(gradient, np.zeros(weight.shape))
    moved = (np.allclose(a, b, rtol=1e-5) for a, b in zip(layer.get_weights(), before, strict=True))
    names = [w.name for w, same in zip(layer.weights, moved, strict=True) if not same]
    # The power iteration reads no samples.
    assert set(names) <= {"vector1", "vector2", "divisor"}
    assert all(np.isfinite(weight).all() for weight in layer.get_weights())


def convolutional(build):
    """Return a net of a user's own, with a Keras convolution that has a bias."""
    inputs = keras.Input(IMAGE)
    state = keras.layers.Conv2D(5, 3, strides=2)(inputs)
    features = keras.layers.GlobalAveragePooling2D()(ki.NAISConv2D(5, max_unroll=2)(state))
    return build(inputs, keras.layers.Dense(4)(features))


def make_net(name):
    if name == "own":
        return convolutional(ki.IterativeModel)
    return ki.create_model(name, IMAGE, 4, **NETS[name])


@pytest.mark.parametrize("name", [*NETS, "own"])
def test_a_net_with_depth_answers_for_no_images(name):
    model, images = make_net(name), np.ones((3, *IMAGE), np.float32)
    view = ki.with_depth(model)
    for call in (view, tf.function(view, input_signature=[tf.TensorSpec((None, *IMAGE))])):
        whole, answers = call(images), call(images[:0])
        for output, answer in answers.items():
            assert answer.shape == (0, *whole[output].shape[1:])
            assert answer.dtype == whole[output].dtype
    assert model(images[:0]).shape == (0, 4)


CONVOLUTIONS = {
    "other shape": lambda: keras.layers.Conv2D(5, 3, strides=2),
    "same shape": lambda: keras.layers.Conv2D(3, 3, padding="same"),
    "transposed": lambda: keras.layers.Conv2DTranspose(5, 3, strides=2),
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_of_keras_gets_gradients_of_zero(kind, mode):
    inputs = keras.Input(IMAGE)
    model = ki.IterativeModel(inputs, CONVOLUTIONS[kind]()(inputs))

    def differentiate(x):
        with tf.GradientTape() as tape:
            y = model(x, training=True)
        variables = [variable.value for variable in model.trainable_variables]
        return y, tape.gradient(y, variables, unconnected_gradients="zero")

    if mode == "graph":
        differentiate = tf.function(differentiate, input_signature=[tf.TensorSpec((None, *IMAGE))])
    y, gradients = differentiate(tf.zeros((0, *IMAGE)))
    assert y.shape == (0, *model.output_shape[1:])
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_a_net_takes_symbolic_inputs_of_another_shape():
    inputs = keras.Input((None, None, 3))
    model = ki.IterativeModel(inputs, keras.layers.Conv2D(5, 3, strides=2)(inputs))
    assert model(keras.Input((9, 9, 3), batch_size=2)).shape == (2, 4, 4, 5)


def test_the_view_of_a_plain_keras_model_answers_for_no_images():
    view = ki.with_depth(convolutional(keras.Model))
    assert view(np.zeros((0, *IMAGE)))["logits"].shape == (0, 4)


def make_data():
    """Return five labelled images: in batches of four, the second batch has one."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, *IMAGE)).astype(np.float32), rng.integers(4, size=5)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_a_replica_without_images_adds_nothing():
    images, labels = make_data()
    with two_replicas().scope():
        model = make_net("own")
        model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
    expected = make_net("own")
    expected.set_weights(model.get_weights())
    history = model.fit(
        images, labels, batch_size=4, shuffle=False, verbose=0, validation_data=(images, labels),
        validation_batch_size=4,
    ).history  # fmt: skip

    optimizer, losses = keras.optimizers.SGD(0.1), []
    for rows in (slice(0, 4), slice(4, 5)):
        with tf.GradientTape() as tape:
            loss = LOSS(labels[rows], expected(images[rows], training=True))
        variables = expected.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        losses.append(float(loss))
    for got, weight in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(got, weight, atol=1e-6)
    assert history["loss"][0] == pytest.approx(np.average(losses, weights=[4, 1]), rel=1e-5)
    logits = expected(images)
    assert history["val_loss"][0] == pytest.approx(float(LOSS(labels, logits)), rel=1e-5)
    accuracy = np.mean(np.argmax(logits, axis=1) == labels)
    assert history["val_accuracy"][0] == pytest.approx(accuracy)


def test_a_replica_without_images_leaves_statistics_finite():
    images, labels = make_data()
    with two_replicas().scope():
        model = make_net("resnet_bn")
        model.compile("sgd", LOSS)
    history = model.fit(images, labels, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert all(np.isfinite(copy).all() for weight in model.weights for copy in weight.value.values)
