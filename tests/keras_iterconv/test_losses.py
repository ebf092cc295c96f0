"""Smoothed cross-entropy, against the dense formula in NumPy."""

import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from keras_iterconv.losses import SmoothedCrossentropy, class_crossentropy
from keras_iterconv.tasks import TASKS


@pytest.mark.parametrize("label_shape", [(6,), (6, 1), (6, 4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_cross_entropy_of_smoothed_labels(label_shape, smoothing):
    generator = np.random.default_rng(0)
    shape = (*label_shape[:1], 5) if label_shape[-1] == 1 else (*label_shape, 5)
    logits = generator.normal(size=shape, scale=30)
    labels = generator.integers(5, size=label_shape)
    target = np.eye(5)[labels.reshape(shape[:-1])] * (1 - smoothing) + smoothing / 5
    expected = -(target * log_softmax(logits, axis=-1)).sum(axis=-1)
    loss = class_crossentropy(smoothing, reduction="none")
    found = np.asarray(loss(labels, logits.astype(np.float32)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_survives_its_config():
    loss = SmoothedCrossentropy(0.3, reduction="sum")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert (copy.label_smoothing, copy.reduction) == (0.3, "sum")


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_share_out_of_range(value):
    with pytest.raises(ValueError, match=r"`label_smoothing` .*Received: label_smoothing="):
        SmoothedCrossentropy(value)


@pytest.mark.parametrize("name", ["classes", "label_sets", "labels_per_position"])
def test_the_loss_of_a_task_takes_it(name):
    assert TASKS[name].make_loss(label_smoothing=0.1).label_smoothing == 0.1
