"""Nets and data whose indices cannot be measured."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.stage_nets import CLASSES, unit, zeros_and_class_two

# For small nets that is much quicker.
pytestmark = pytest.mark.usefixtures("untraced")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda x: keras.layers.Conv2D(2, 1)(x),
            "has no stage whose blocks can be run in another order",
        ),
        (
            lambda x: keras.Sequential([ki.ResidualStage(2, 2)], name="inner")(x),
            "A stage lies in 'inner', a model nested in",
        ),
        (
            lambda x: keras.layers.Add()([x, ki.ResidualStage(2, 2, name="s")(x)]),
            "A path from input to output leads around the stage 's'",
        ),
    ],
)
def test_nets_that_cannot_be_measured(build, message):
    inputs = keras.Input((3, 2, 2))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(build(inputs)))
    with pytest.raises(ValueError, match=message):
        ki.measure_indices(model, (np.zeros((4, 3, 2, 2), np.float32), np.zeros(4, int)))


def test_a_path_around_the_second_stage_alone():
    inputs = keras.Input((3, 2, 2))
    state = ki.ResidualStage(2, 2, name="first")(inputs)
    state = keras.layers.Add()([state, ki.ResidualStage(2, 2, name="second")(state)])
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(state))
    with pytest.raises(ValueError, match="leads around the stage 'second'"):
        ki.measure_indices(model, (np.zeros((4, 3, 2, 2), np.float32), np.zeros(4, int)))


def test_a_stage_that_is_used_twice():
    inputs = keras.Input((3, 2, 2))
    stage = ki.ResidualStage(2, 2, name="s")
    outputs = keras.layers.GlobalAveragePooling2D()(stage(stage(inputs)))
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="'s' is used more than once"):
        ki.measure_indices(model, (np.zeros((4, 3, 2, 2), np.float32), np.zeros(4, int)))


@pytest.mark.parametrize("model", [None, "resnet_w16", lambda x: x])
def test_what_is_no_functional_model(model):
    with pytest.raises(ValueError, match=r"`model` must be a functional Keras model.*Received"):
        ki.measure_indices(model, (np.zeros((4, 3, 2, 2)), np.zeros(4)))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (3, "`dataset` must be batches .*Received: dataset=3"),
        ([], "`dataset` must hold at least one batch"),
        ((np.zeros((0, 3, 2, 4)), np.zeros(0)), "`dataset` must hold at least one batch"),
        ((np.zeros((4, 3, 2, 4)), np.zeros(3)), "a label for each image. Received: 4 images, 3"),
        ((np.zeros((4, 3, 2, 4)), np.zeros((4, 2))), "`labels` must be class numbers"),
        ([(np.zeros((4, 3, 2, 4)), np.zeros(3))], "`labels` must be class numbers"),
    ],
)
def test_bad_data(nets, dataset, message):
    with pytest.raises(ValueError, match=message):
        ki.measure_indices(nets.adding([unit(2), unit(2)]), dataset)


def test_data_without_an_end_or_a_sample(nets):
    model = nets.adding([unit(2), unit(2)])
    pairs = tf.data.Dataset.from_tensor_slices(zeros_and_class_two(8)).batch(4)
    with pytest.raises(ValueError, match="`dataset` must be finite, or `samples`"):
        ki.measure_indices(model, pairs.repeat())
    with pytest.raises(ValueError, match="`dataset` must hold at least one batch"):
        ki.measure_indices(model, pairs.take(0))


@pytest.mark.parametrize("resamples", [0, -1, 2.5])
def test_bad_resamples(nets, resamples):
    with pytest.raises(ValueError, match="`resamples` must be an integer of at least 1"):
        ki.measure_indices(nets.adding([unit(2)] * 2), zeros_and_class_two(), resamples)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
        ({"seed": 0.5}, "`seed` must be an integer of at least 0. Received: seed=0.5"),
        ({"seed": "a"}, "`seed` must be an integer of at least 0. Received: seed='a'"),
        ({"resamples": 0}, "`resamples` must be an integer"),
        ({"samples": 0}, "`samples` must be an integer"),
    ],
)
def test_arguments_are_refused_before_an_image_is_read(nets, given, message):
    def unread():
        raise AssertionError("the data set was read")
        yield

    with pytest.raises(ValueError, match=message):
        ki.measure_indices(nets.adding([unit(2)] * 2), unread(), **given)


def test_the_first_images_of_an_endless_data_set(nets):
    model = nets.adding([unit(2), unit(2)])
    images, labels = zeros_and_class_two(20)
    pairs = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8).repeat()
    report = ki.measure_indices(model, pairs, resamples=5, samples=10)
    expected = ki.measure_indices(model, (images[:10], labels[:10]), resamples=5)
    assert report.to_dict() == expected.to_dict()
    assert report.samples == 10


def test_nets_that_cannot_be_measured_say_why(nets):
    inputs = keras.Input((*nets.image, CLASSES))
    stage = ki.ResidualStage(CLASSES, 2, name="own")
    state = keras.layers.GlobalAveragePooling2D()(stage(inputs, schedule=[0, 1, 1]))
    data = (nets.images(4), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"'own' is called with a schedule"):
        ki.measure_indices(keras.Model(inputs, state), data)
    state = ki.ResidualStage(CLASSES, 2)(inputs)
    with pytest.raises(ValueError, match=r"one output, the logits.*with 2 outputs"):
        ki.measure_indices(keras.Model(inputs, [state, state]), data)
