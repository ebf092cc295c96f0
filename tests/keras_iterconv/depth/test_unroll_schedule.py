"""A net trained with a schedule of its depth is one that was trained in parts, a depth each."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.gated_block import GatedBlock, GatedUpdate


def compiled(model):
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def fit(model, images, **options):
    """Train on targets of a fixed order; return all variables."""
    targets = np.sin(images[:, :4]).astype("float32")
    model.fit(images, targets, batch_size=20, shuffle=False, verbose=0, **options)
    return [np.asarray(v) for v in model.variables + model.optimizer.variables]


def make_net(max_unroll=12, threshold=None, tied=True):
    """Return a compiled net of one block, of the same weights each time."""
    keras.utils.set_random_seed(3)
    block = ki.NAISDense(6, max_unroll, threshold, step_size=0.5, tied=tied)
    inputs = keras.Input((5,))
    return compiled(ki.IterativeModel(inputs, keras.layers.Dense(4)(block(inputs))))


def max_unrolls(model):
    return {block.max_unroll for block in ki.iterated_blocks(model)}


@pytest.mark.parametrize("threshold", [None, 0.03], ids=["fixed", "adaptive"])
def test_each_epoch_is_one_of_a_net_of_that_depth(images, threshold):
    schedule = ki.UnrollSchedule({0: 1, 2: 12})
    model = make_net(5, threshold)
    whole = fit(model, images, epochs=3, callbacks=[schedule])
    assert max_unrolls(model) == {12}

    shallow, deep = (make_net(updates, threshold) for updates in (1, 12))
    state = fit(shallow, images, epochs=2)
    deep.optimizer.build(deep.trainable_variables)
    for variable, value in zip(deep.variables + deep.optimizer.variables, state, strict=True):
        variable.assign(value)
    for ours, theirs in zip(whole, fit(deep, images, epochs=1), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class CountedUpdate(GatedUpdate):
    """An update that counts its runs."""

    made = 0

    def step(self, state, k, weights, drives):
        @tf.custom_gradient
        def counted(x):
            return tf.numpy_function(count, [x], x.dtype), lambda upstream: upstream

        def count(x):
            CountedUpdate.made += 1
            return x

        return super().step(tf.ensure_shape(counted(state), state.shape), k, weights, drives)


class CountedBlock(GatedBlock):
    """A block that counts the runs of its update, and how often it is traced."""

    traced = 0

    def build_update(self, inputs):
        CountedBlock.traced += 1
        return CountedUpdate().bind([self.gate.value, self.value.value], (inputs,))


def test_an_epoch_costs_its_own_updates_and_nothing_is_traced_again(images):
    inputs = keras.Input((5,))
    state = CountedBlock(max_unroll=9)(inputs)
    model = compiled(ki.IterativeModel(inputs, keras.layers.Dense(4)(state)))
    counts = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            CountedUpdate.made = 0

        def on_epoch_end(self, epoch, logs=None):
            counts.append((CountedUpdate.made, CountedBlock.traced))

    fit(model, images, epochs=3, callbacks=[ki.UnrollSchedule({0: 1, 1: 3, 2: 9}), Watch()])
    made, traced = np.transpose(counts)
    np.testing.assert_array_equal(made / made[0], [1, 3, 9])
    assert len(set(traced)) == 1


def test_a_training_that_goes_on_has_the_depth_of_its_epoch():
    model = make_net()
    schedule = ki.UnrollSchedule({0: 1, 2: 3, 5: 7})
    schedule.set_model(model)
    for epoch, updates in enumerate([1, 1, 3, 3, 3, 7, 7]):
        # Each as the first epoch of a `fit` with this `initial_epoch`.
        schedule.on_train_begin()
        schedule.on_epoch_begin(epoch)
        assert max_unrolls(model) == {updates} == {schedule.max_unroll_of(epoch)}
    assert [schedule.start_of(epoch) for epoch in range(7)] == [0, 0, 2, 2, 2, 5, 5]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({}, "must be a dict from epochs"),
        ([1, 3], "must be a dict from epochs"),
        ({1: 3}, "must begin with epoch 0"),
        ({False: 3}, "must begin with epoch 0"),
        ({0: 1, 5: 3, 4: 10}, "in rising order"),
        ({0: 1, 2.5: 3}, "`schedule` must be an integer"),
        ({0: 0}, "`max_unroll` must be an integer of at least 1"),
        ({0: 1, 3: 2.5}, "`max_unroll` must be an integer of at least 1"),
    ],
)
def test_schedules_that_are_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        ki.UnrollSchedule(schedule)


def test_weights_for_fewer_updates_are_refused_before_the_first_step(images):
    model = make_net(4, tied=False)
    before = [np.asarray(variable) for variable in model.variables]
    with pytest.raises(ValueError, match=r"untied and has weights.*max_unroll=5"):
        fit(model, images, epochs=2, callbacks=[ki.UnrollSchedule({0: 1, 1: 5})])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert max_unrolls(model) == {4}


def test_a_net_without_such_blocks_is_refused(images):
    inputs = keras.Input((5,))
    model = compiled(ki.IterativeModel(inputs, keras.layers.Dense(4)(inputs)))
    with pytest.raises(ValueError, match="at least one block whose depth"):
        fit(model, images, callbacks=[ki.UnrollSchedule({0: 1})])
