"""Where a sample's state stops being finite, against plain NumPy loops in float64."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki

pytestmark = pytest.mark.graph_optimizer
LARGEST = float(np.finfo(np.float32).max)
UPDATES = 9


def growing_block(activation="relu", **settings):
    """Return a net whose only block overtakes itself: one unit is pushed above the other in turn.

    Projections forbid such weights; assigning them goes around these.
    """
    inputs = keras.Input((2,))
    block = ki.NAISDense(2, UPDATES, step_size=1.0, name="grows", **settings)
    model = keras.Model(inputs, block(inputs))
    R = np.array([[1e3, -1e3], [0, 0]])
    block.R.assign(R if block.tied else np.stack([R] * UPDATES))
    eye = np.eye(2)
    block.B.assign(eye if block.tied else np.stack([eye] * UPDATES))
    return model, block


def first_overflow(double_of, u):
    """Return the first update, from 1, after which a state is too large for float32."""
    x = np.zeros_like(u, np.float64)
    for k in range(UPDATES):
        x = x + double_of(k).change(x, u)
        if np.abs(x).max() > LARGEST:
            return k + 1
    return None


def inputs_of_many_scales():
    scales = np.array([1e12, 0, 1, 1e20, 1e30, 3e38, 1e-18])
    return (scales[:, None] * np.array([1, 0.5])).astype(np.float32)


@pytest.mark.parametrize("tied", [True, False])
def test_the_first_update_of_each_sample(tied, numpy_double):
    model, block = growing_block(tied=tied)
    u = inputs_of_many_scales()
    expected = [first_overflow(lambda k: numpy_double(block, k), row[np.newaxis]) for row in u]
    assert expected[1] is None
    assert len(set(expected)) >= 5
    assert ki.find_not_finite(model, u) == [
        (n, "grows", update) for n, update in enumerate(expected) if update is not None
    ]


def test_a_sample_of_adaptive_depth_stops_at_that_update():
    model, _ = growing_block(threshold=1e-3)
    u = inputs_of_many_scales()
    answers = ki.with_depth(model)(u)
    depth, status = (answers[name].numpy()[:, 0] for name in ("depth", "status"))
    bad = np.flatnonzero(status == ki.unrolling.Status.NOT_FINITE)
    assert len(set(depth[bad])) >= 3
    assert ki.find_not_finite(model, u) == [(n, "grows", depth[n]) for n in bad]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["nais_mnist", "nais_adaptive", "resnet_w8", "resnet54"])
def test_an_image_that_is_not_finite_is_found_before_the_first_update(name, bad):
    blocks = {} if name == "nais_mnist" else {"blocks": 2}
    model = ki.create_model(name, (8, 8, 1), 10, **blocks)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1))
    assert ki.find_not_finite(model, images) == []
    images[2, 3, 3] = bad
    assert ki.find_not_finite(model, images) == [(2, ki.iterated_blocks(model)[0].name, 0)]


@pytest.mark.parametrize("schedule", [None, [0, 2]])
def test_the_block_of_a_stage(schedule):
    inputs = keras.Input((4, 4, 3))
    first = ki.ResidualStage(3, 2, name="first")
    second = ki.ResidualStage(3, 3, name="second")
    state = second(first(inputs), schedule=schedule)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(state))
    kernels = second.kernel2.numpy()
    # Only the image of 1e30 is too large for it.
    kernels[2] *= 1e15
    second.kernel2.assign(kernels)
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    images[1] *= 1e30
    assert ki.find_not_finite(model, images) == [(1, "second", 3 if schedule is None else 2)]


def test_what_follows_the_last_block():
    model, block = growing_block()
    block.R.assign(np.zeros((2, 2)))
    logits = keras.layers.Dense(1, kernel_initializer="ones")(model.output)
    model = keras.Model(model.input, {"logits": logits, "state": model.output})
    u = np.array([[1, 1], [3e37, 3e37]], np.float32)
    assert ki.find_not_finite(model, u) == [(1, None, 0)]


def test_no_samples_and_no_functional_model():
    model, _ = growing_block()
    assert ki.find_not_finite(model, np.zeros((0, 2))) == []
    with pytest.raises(ValueError, match="must be a functional Keras model"):
        ki.find_not_finite(keras.Sequential(), np.zeros((1, 2)))
