"""A depthwise-separable block of a user's own: its values, its certificate, and its page."""

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

import keras_iterconv as ki
from tests.support.separable_block import SeparableBlock

ROOT = Path(__file__).parents[3]
IMAGES = np.random.default_rng(0).normal(size=(3, 6, 5, 4)).astype(np.float32)


def built(positive=False, **settings):
    """Return a block with large weights, projected; positive ones on request."""
    block = SeparableBlock(**settings)
    block.build(IMAGES.shape)
    rng = np.random.default_rng(1)
    for weight in block.weights:
        value = rng.normal(size=weight.shape)
        weight.assign(np.abs(value) if positive else value)
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
    return block


def preactivation(block, image):
    """Return P D x - x of an image, by SciPy."""
    depthwise, pointwise = block.depthwise.numpy()[..., 0], block.pointwise.numpy()[0, 0]
    channels = [
        scipy.signal.correlate2d(image[..., c], depthwise[..., c], "same")
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1) @ pointwise - image


def test_an_update_is_that_of_scipy():
    block = built()
    found = block.update(IMAGES, IMAGES, 0)
    bias = block.bias.numpy()
    expected = [x + 0.5 * np.tanh(preactivation(block, x) + bias + x) for x in IMAGES]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def jacobian(block):
    """Return the dense I + h (P D - I), for slopes of 1."""
    shape = IMAGES.shape[1:]
    basis = np.eye(np.prod(shape)).reshape(-1, *shape)
    A = np.stack([preactivation(block, e).ravel() for e in basis], axis=1)
    return np.eye(len(A)) + block.step_size * A


@pytest.mark.parametrize("positive", [True, False])
def test_its_row_of_the_certificate_is_the_norm_of_the_dense_matrix(positive):
    block = built(positive)
    norm = np.abs(jacobian(block)).sum(axis=1).max()
    (row,) = ki.certify(functional(block)).blocks
    assert row.holds
    assert row.factor < 1
    if positive:
        assert row.factor == pytest.approx(norm, rel=1e-5)
    # A negative diagonal entry takes from the 1 that it is added to.
    assert norm <= row.factor * (1 + 1e-6)


def functional(block):
    image = keras.Input(IMAGES.shape[1:])
    return ki.IterativeModel(image, block(image))


def test_weights_outside_of_the_projection_have_no_guarantee():
    block = built()
    block.pointwise.assign(3 * block.pointwise)
    (row,) = ki.certify(functional(block)).blocks
    assert not row.holds
    assert row.reason == "a row sum is not below 1"


def test_the_net_has_a_bound_that_no_pair_of_images_exceeds():
    model = functional(built(max_unroll=4))
    report = ki.certify(model, probe=IMAGES)
    assert report.norm == "infinity"
    assert report.largest_ratio <= report.bound
    # After one update of slope 1, row sums of I + h (P D - I) + h I.
    one = built(max_unroll=1, positive=True)
    exact = np.abs(jacobian(one) + 0.5 * np.eye(120)).sum(axis=1).max()
    assert ki.certify(functional(one)).bound == pytest.approx(exact, rel=1e-5)


class Doubled(SeparableBlock):
    """A subclass that computes something else and states no rule."""

    def build_update(self, inputs, data_format="NHWC"):
        return super().build_update(2 * inputs, data_format)


def test_a_rule_does_not_pass_to_subclasses():
    report = ki.certify(functional(Doubled()))
    assert "no theorem covers it" in report.blocks[0].reason
    assert report.bound is None
    assert "no rule for the block" in report.bound_reason


def test_the_page_shows_this_block():
    source = (ROOT / "tests/support/separable_block.py").read_text().split('"""\n', 1)[1]
    assert source.strip() in (ROOT / "docs/extending.md").read_text()


class Wrong(SeparableBlock):
    """A block with one mistake."""

    def __init__(self, mistake, **kwargs):
        super().__init__(**kwargs)
        self.mistake = mistake
        self.scale = tf.Variable(0.5)

    def build_update(self, inputs, data_format="NHWC"):
        weights = [tf.convert_to_tensor(w) for w in (self.depthwise, self.pointwise)]
        transfers = {
            "inputs": lambda x, k, w, d: 0.5 * inputs - x,
            "weight": lambda x, k, w, d: x * weights[1][0, 0, 0],
            "variable": lambda x, k, w, d: -x * self.scale,
            "shape": lambda x, k, w, d: tf.reduce_sum(x, axis=1, keepdims=True),
        }
        transfer = transfers.get(self.mistake, lambda x, k, w, d: -x)
        return self.euler_update(transfer).bind(weights, (inputs,))

    def make_initial_state(self, inputs):
        state = super().make_initial_state(inputs)
        return state[:, :2] if self.mistake == "start" else state

    def certificate_rows(self, image):
        return [] if self.mistake == "rows" else super().certificate_rows(image)

    def lipschitz_gain(self, gains, norm, rows, options):
        return 1e-6


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("threshold", [None, 0.1])
@pytest.mark.parametrize("mistake", ["inputs", "weight", "variable"])
def test_an_update_that_closes_over_tensors_is_refused(mistake, threshold, mode):
    block = Wrong(mistake, max_unroll=2, threshold=threshold)
    call = tf.function(block) if mode == "graph" else block
    with pytest.raises(ValueError, match="must read no tensors or variables but"):
        call(IMAGES)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("shape", r"`transfer` must return a pre-activation of the state's shape, \(3, 6, 5, 4\)"),
        ("start", "`make_initial_state` of .* must return a state of the shape"),
    ],
)
def test_wrong_shapes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        Wrong(mistake, max_unroll=2)(IMAGES)


def test_a_certificate_without_rows_is_refused():
    with pytest.raises(ValueError, match="must return at least one row"):
        ki.certify(functional(Wrong("rows", max_unroll=2)))


def test_a_bound_that_two_inputs_exceed_is_no_bound():
    report = ki.certify(functional(Wrong(None, max_unroll=2)), probe=IMAGES)
    assert report.bound is None
    assert "a rule of a block is wrong" in report.bound_reason
    assert report.largest_ratio > 1e-3


def test_a_norm_that_does_not_exist_is_refused():
    block = Wrong(None, max_unroll=2)
    block.bound_norm = "1"
    with pytest.raises(ValueError, match="`bound_norm`"):
        ki.certify(functional(block))


def test_another_update_is_not_taken_for_linear():
    assert SeparableBlock().linear
    assert not Wrong(None).linear
    with pytest.raises(ValueError, match="linear in the state"):
        Wrong(None, gradient="frozen")
