"""NaN that meets a ReLU: the losses of training and evaluation say so."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers import BatchNormalization

pytestmark = pytest.mark.graph_optimizer
IMAGE = (8, 8, 8)


def before_relu(layer):
    """Return a net of a user's own in which a ReLU stands behind a layer."""
    inputs = keras.Input(IMAGE)
    state = keras.layers.ReLU()(layer(inputs))
    features = keras.layers.GlobalAveragePooling2D()(state)
    return keras.Model(inputs, keras.layers.Dense(4)(features))


NETS = {
    "resnet_w8": lambda: ki.create_model("resnet_w8", IMAGE, 4, width=8, blocks=1),
    "resnet54": lambda: ki.create_model("resnet54", IMAGE, 4, filters=(8,), blocks=1),
    "normalisation": lambda: before_relu(BatchNormalization()),
    "stage": lambda: before_relu(ki.ResidualStage(8, 2, "stage_input")),
}


@pytest.mark.parametrize("name", NETS)
def test_an_image_of_nan_makes_the_loss_of_training_nan(name):
    images, labels = np.ones((4, *IMAGE), np.float32), np.arange(4)
    images[3] = np.nan
    model = NETS[name]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    history = model.fit(images, labels, batch_size=4, epochs=2, verbose=0).history
    assert np.isnan(history["loss"]).all()


LAYERS = {
    "normalisation": BatchNormalization,
    "block": lambda: ki.NAISConv2D(8, max_unroll=2),
    "untied block": lambda: ki.NAISConv2D(8, max_unroll=2, tied=False),
    "dense block": lambda: ki.NAISDense(8, max_unroll=2),
    "stage": lambda: ki.ResidualStage(8, 2),
    "capped stage": lambda: ki.ResidualStage(8, 2, "stage_input", lipschitz_cap=0.9),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_of_nan_comes_through_the_relu_behind(name, training):
    layer = LAYERS[name]()
    inputs = tf.ones([2, 8] if name == "dense block" else [2, *IMAGE])
    layer.build(inputs.shape)
    evaluate = tf.function(lambda x: tf.nn.relu(layer(x, training=training)))
    for weight in layer.trainable_variables:
        before = layer.get_weights()
        weight.assign(np.full(weight.shape, np.nan))
        assert np.isnan(evaluate(inputs)).any(), weight.name
        layer.set_weights(before)
