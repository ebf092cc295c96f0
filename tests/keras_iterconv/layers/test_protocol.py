"""A block of one's own, of which the package knows nothing but the protocol."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.exported_function import ExportedFunction
from keras_iterconv.layers.protocol import Block, is_block
from keras_iterconv.unrolling import Status, Unrolled


class Halving(Block, keras.layers.Layer):
    """Halve the state `max_unroll` times, no sample more often than the others."""

    def __init__(self, max_unroll=3, **kwargs):
        super().__init__(**kwargs)
        self.max_unroll = max_unroll

    def call(self, inputs, return_depth=False):
        return self.run_to(inputs, self.max_unroll) if return_depth else inputs / 2**self.max_unroll

    def run_to(self, inputs, max_unroll, threshold=None, **options):
        return Unrolled.fixed(inputs / 2.0**max_unroll, max_unroll)

    def compute_output_spec(self, inputs, return_depth=False):
        state = keras.KerasTensor(inputs.shape, inputs.dtype)
        counts = [keras.KerasTensor(inputs.shape[:1], "int32") for _ in range(2)]
        return Unrolled(state, *counts) if return_depth else state


@pytest.fixture
def model():
    inputs = keras.Input((2, 2, 1))
    state = keras.layers.Flatten()(Halving(3, name="mine")(inputs))
    return ki.IterativeModel(inputs, keras.layers.Dense(3)(state))


IMAGES = np.random.default_rng(0).normal(size=(5, 2, 2, 1)).astype(np.float32)


def test_its_depth_is_counted(model):
    assert [block.name for block in ki.iterated_blocks(model)] == ["mine"]
    assert ki.processing_depth(model) == 3
    found = ki.with_depth(model).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found["logits"], model(IMAGES), rtol=1e-6)
    np.testing.assert_array_equal(found["depth"], np.full((5, 1), 3))
    np.testing.assert_array_equal(found["status"], np.full((5, 1), Status.MAX_UNROLL))


def test_its_depth_cannot_be_set(model):
    with pytest.raises(ValueError, match="whose depth and gradient can be set"):
        ki.set_depth(model, max_unroll=2)


def test_where_it_stops_being_finite(model):
    images = IMAGES.copy()
    images[1, 0, 0, 0] = np.nan
    assert ki.find_not_finite(model, images) == [(1, "mine", 0)]


def test_an_exported_function_returns_its_depth(model):
    found = ExportedFunction(model)([tf.constant(IMAGES)])
    np.testing.assert_allclose(found["logits"], model(IMAGES), rtol=1e-6)
    np.testing.assert_array_equal(found["depth"], np.full((5, 1), 3))


@pytest.mark.parametrize(
    ("layer", "adjustable", "scheduled", "channels_first"),
    [
        (ki.NAISDense(3), True, False, False),
        (ki.NAISConv2D(3), True, False, True),
        (ki.ResidualStage(3, blocks=2), False, True, False),
        (ki.ResidualUpdate(), False, False, False),
    ],
)
def test_what_the_package_s_own_blocks_offer(layer, adjustable, scheduled, channels_first):
    assert is_block(layer)
    assert layer.adjustable == adjustable
    assert layer.scheduled == scheduled
    assert layer.channels_first == channels_first


def test_other_layers_count_no_updates():
    assert not is_block(ki.ResidualBlock(3))
    assert not is_block(keras.layers.Dense(3))


@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_to_another_depth_stores_nothing(updates):
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype(np.float32)
    block, stage = ki.NAISConv2D(3, max_unroll=4), ki.ResidualStage(3, blocks=4)
    for layer, expected in (
        (block, lambda: ki.NAISConv2D(3, max_unroll=updates)),
        (stage, None),
    ):
        layer.build(x.shape)
        found = layer.run_to(x, updates)
        assert found.depth.numpy().tolist() == [updates] * 2
        assert layer.max_unroll == 4
        if expected is None:
            other = layer(x, schedule=list(range(updates)))
        else:
            twin = expected()
            twin.build(x.shape)
            twin.set_weights(layer.get_weights())
            other = twin(x)
        np.testing.assert_allclose(found.state, other, rtol=1e-6, atol=1e-6)
