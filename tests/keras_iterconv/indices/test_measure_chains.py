"""Indices of nets of plain layers: equal to those of stages, and known ones by construction."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.plain_nets import rebuild, residual_net
from tests.support.stage_nets import CLASSES, unit, zeros_and_class_two

INDICES = ("convergence", "recurrence", "divergence")
# For small nets that is much quicker.
pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture
def traced(untraced):
    """Trace all the same."""
    tf.config.run_functions_eagerly(False)


def chains_of(model, rebuilt):
    """Return a chain for each stage of a net, in the net of plain layers."""
    return [
        ki.chain(rebuilt, rf"{layer.name}_add\d+", name=layer.name)
        for layer in model.layers
        if isinstance(layer, ki.ResidualStage)
    ]


def labels_of(model, x, flipped=10):
    labels = np.argmax(model(x), axis=1)
    labels[:flipped] = (labels[:flipped] + 1) % CLASSES
    return labels


@pytest.mark.parametrize(
    ("blocks", "skip_from", "cap"),
    [
        ((3, 2), "previous", None),
        ((2, 3), "stage_input", None),
        ((3,), "stage_input", 0.95),
        ((2,), "previous", 0.95),
    ],
)
def test_a_net_with_a_stage_s_weights_has_its_indices(nets, blocks, skip_from, cap):
    model = nets.chain(blocks, skip_from, cap)
    net = rebuild(model)
    x = nets.images(120)
    np.testing.assert_allclose(net(x), model(x), atol=1e-5)
    data = (x, labels_of(model, x))
    expected = ki.measure_indices(model, data, resamples=20)
    report = ki.measure_indices(chains_of(model, net), data, resamples=20)
    assert report.stages == expected.stages
    assert report.samples == 120
    for index in INDICES:
        np.testing.assert_allclose(getattr(report, index), getattr(expected, index), atol=1e-6)
        np.testing.assert_allclose(report.intervals[index], expected.intervals[index], atol=1e-6)
    for curves, others in zip(report.errors, expected.errors, strict=True):
        for curve, other in zip(curves, others, strict=True):
            np.testing.assert_allclose(curve, other, atol=1e-6)


@pytest.mark.usefixtures("traced")
def test_traced_and_in_batches(nets):
    model = nets.chain((3,))
    chains = chains_of(model, rebuild(model))
    x = nets.images(61)
    labels = labels_of(model, x)
    batches = tf.data.Dataset.from_tensor_slices((x, labels)).batch(25)
    expected = ki.measure_indices(model, (x, labels), resamples=10)
    for data in ((x, labels), batches):
        report = ki.measure_indices(chains, data, resamples=10)
        assert report.to_dict() == expected.to_dict()


def adding(nets, steps, skip_from="previous"):
    """Return a chain whose block t adds `steps[t]` to each pixel; see `Nets.adding`."""
    (chain,) = chains_of(*(lambda model: (model, rebuild(model)))(nets.adding(steps, skip_from)))
    return chain


def test_an_identity_tail_converges_where_it_begins(nets):
    nothing = np.zeros(CLASSES)
    chain = adding(nets, [nothing, nothing, unit(2), nothing, nothing])
    report = ki.measure_indices(chain, zeros_and_class_two(), resamples=20)
    np.testing.assert_array_equal(report.errors[0].early_readout, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(report.errors[0].left_out, [0, 0, 1, 0, 0])
    assert report.convergence[0] == pytest.approx(1 - (2 / 4) / 0.75)
    assert report.recurrence[0] == pytest.approx(1 - (1 / 4) / 0.75)
    assert report.divergence[0] == 0


@pytest.mark.parametrize("blocks", [2, 4])
def test_equal_blocks_are_missed_equally(nets, blocks):
    chain = adding(nets, [unit(2)] * blocks)
    x, labels = zeros_and_class_two()
    # Class 1 leads in half of the images; only all steps together bring class 2 before it.
    x[32:] += unit(1, blocks - 0.5).astype(np.float32)
    report = ki.measure_indices(chain, (x, labels), resamples=20)
    np.testing.assert_array_equal(report.errors[0].left_out, np.full(blocks, 0.5))
    assert report.recurrence[0] == 1
    assert report.divergence[0] == 0
    assert report.convergence[0] == pytest.approx(1 - 0.5 / 0.75)


def test_a_fixed_point_does_not_diverge(nets):
    chain = adding(nets, [unit(2)] * 3, skip_from="stage_input")
    report = ki.measure_indices(chain, zeros_and_class_two(), resamples=20)
    assert report.divergence[0] == 0
    assert report.convergence[0] == 1
    np.testing.assert_array_equal(report.errors[0].left_out, np.zeros(3))


def test_a_last_block_that_goes_on_diverges(nets):
    chain = adding(nets, [unit(2, 6.5), unit(3)])
    report = ki.measure_indices(chain, zeros_and_class_two(), resamples=20)
    np.testing.assert_array_equal(report.errors[0].repeated, [0] * 5 + [1] * 11)
    assert report.divergence[0] == pytest.approx((11 / 16) / 0.75)


def test_a_chain_of_one_block_has_no_index():
    net = keras.Model(*residual_net(blocks=1))
    # The stem has no second block before it.
    chain = ki.chain(net, ["stem", "block0_add"])
    x = np.random.default_rng(0).normal(size=(20, 4, 3, 3)).astype(np.float32)
    report = ki.measure_indices(chain, (x, np.argmax(net(x), axis=1)), resamples=5)
    assert report.reasons[0]["convergence"] == "a stage of one block has no index"


def test_indices_of_resnet50():
    net = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    chain = ki.chain(net, r"conv5_block\d+_out", "conv5")
    x = np.random.default_rng(0).normal(0, 50, (8, 32, 32, 3)).astype(np.float32)
    weights = net.get_weights()
    labels = np.argmax(net(x), axis=1)
    report = ki.measure_indices(chain, (x, labels), resamples=20)
    assert report.stages == ["conv5"]
    assert report.error == 0
    (curves,) = report.errors
    assert [len(curve) for curve in curves] == [2, 2, 16]
    states = [chain.first_state, *(block.state for block in chain.blocks)]
    first, early, last = keras.Model(net.input, states)(x, training=False)
    np.testing.assert_allclose(chain(first, [0]), early, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(chain(first), last, rtol=1e-4, atol=1e-4)
    # The model's own head on the early state. One image may lie between two classes.
    answers = np.argmax(keras.Model(states[1], net.output)(early), axis=1)
    assert curves.early_readout[0] == pytest.approx(np.mean(answers != labels), abs=1.01 / 8)
    for before, after in zip(weights, net.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_measured_net_is_as_it_was(nets, tmp_path):
    model = nets.chain((2,))
    net = rebuild(model)
    x = nets.images(40)
    data = (x, labels_of(model, x))
    config, logits = net.to_json(), np.asarray(net(x))
    layers = [len(layer._inbound_nodes) for layer in net.layers]
    chains = chains_of(model, net)
    report = ki.measure_indices(chains, data, resamples=10)
    assert ki.measure_indices(chains, data, resamples=10).to_dict() == report.to_dict()
    assert net.to_json() == config
    np.testing.assert_array_equal(net(x), logits)
    # Nothing is left in its layers.
    assert [len(layer._inbound_nodes) for layer in net.layers] == layers
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    again = ki.measure_indices(chains_of(model, loaded), data, resamples=10)
    assert again.to_dict() == report.to_dict()


def test_chains_that_cannot_be_measured(nets):
    data = (nets.images(4), np.zeros(4, int))
    one, two = (ki.chain(keras.Model(*residual_net()), r"block\d_add") for _ in range(2))
    with pytest.raises(ValueError, match="`model` must be a list of chains of one model"):
        ki.measure_indices([one, two], data)
    for model in ([], [one, None], one.blocks):
        with pytest.raises(
            ValueError, match=r"`model` must be a functional Keras model.*of chains"
        ):
            ki.measure_indices(model, data)
    inputs, outputs = residual_net()
    net = keras.Model(inputs, [outputs, outputs])
    with pytest.raises(ValueError, match=r"one output, the logits.*with 2 outputs"):
        ki.measure_indices(ki.chain(net, r"block\d_add"), data)


def test_a_path_around_a_chain(nets):
    inputs, state = residual_net(head=False)
    stem = keras.Model(inputs, state).get_layer("stem").output
    state = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([state, stem]))
    chain = ki.chain(keras.Model(inputs, state), r"block\d_add", name="own")
    with pytest.raises(
        ValueError, match="A path from input to output leads around the stage 'own'"
    ):
        ki.measure_indices(chain, (nets.images(4, channels=3), np.zeros(4, int)))
