"""A stream of samples whose batch stays full, against the net on each sample alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers import Iterate
from keras_iterconv.models.deep_thinking_net import PADDING
from keras_iterconv.stop import StablePrediction
from keras_iterconv.unrolling import Status
from tests.support.iterated_updates import CASES, GRUUpdate

BATCH = 4


def alone(model, x):
    """Return the results of `with_depth` on each sample alone."""
    view = ki.with_depth(model)
    count = len(tf.nest.flatten(x)[0])
    found = [
        view(tf.nest.map_structure(lambda z, n=n: z[n : n + 1], x), training=False)
        for n in range(count)
    ]
    return tf.nest.map_structure(lambda *z: np.concatenate(z), *found)


def assert_same(found, expected, rtol=1e-4):
    assert found.keys() == expected.keys()
    for name in ("depth", "status"):
        assert found[name].dtype == np.int32
        np.testing.assert_array_equal(found[name], expected[name])
    (key,) = found.keys() - {"depth", "status"}
    for a, b in zip(*(tf.nest.flatten(each[key]) for each in (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


def nais(**settings):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, padding="same")(inputs)
    x = ki.ResidualStage(3, 1, name="stage")(x)
    settings = {"max_unroll": 20, "threshold": 0.05, "step_size": 0.5, **settings}
    y = ki.NAISConv2D(3, **settings)(x)
    # A way around the block.
    y = keras.layers.Add()([keras.layers.GlobalAveragePooling2D()(z) for z in (x, y)])
    return ki.IterativeModel(inputs, keras.layers.Dense(4)(y))


def images(count=11):
    x = (
        np.random.default_rng(0).normal(size=(count, 6, 6, 2))
        * np.geomspace(0.01, 3, count)[:, None, None, None]
    )
    return x.astype(np.float32)


@pytest.fixture
def net():
    keras.utils.set_random_seed(0)
    return nais()


@pytest.mark.parametrize("batch_size", [BATCH, 64])
def test_a_nais_net_behind_a_stage_with_a_way_around(net, batch_size):
    x = images()
    expected = alone(net, x)
    assert len(set(expected["depth"][:, -1])) > 3
    found = ki.predict_stream(net, x, batch_size)
    assert_same(found, expected)
    assert found["depth"].shape == (11, 2)


def test_a_tied_residual_stage():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    stage = ki.ResidualStage(
        2, 30, "stage_input", lipschitz_cap=0.9, tied=True, threshold=1e-5, name="stage"
    )
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(stage(inputs))))
    x = images()
    expected = alone(model, x)
    assert len(set(expected["depth"].ravel())) > 1
    assert_same(ki.predict_stream(model, x, BATCH), expected)
    with_schedule = keras.Model(inputs, stage(inputs, schedule=[0, 1]))
    with pytest.raises(ValueError, match=r"'stage' of `model` .* without the argument schedule"):
        ki.predict_stream(with_schedule, x, BATCH)


@pytest.mark.parametrize("name", CASES)
def test_every_stopping_rule_and_structure_of_states(name):
    case = CASES[name]
    block, x = case.make(), np.concatenate([case.inputs * scale for scale in (1.0, 0.3, 3.0)])
    inputs = keras.Input(x.shape[1:])
    state = block(inputs)
    last = keras.layers.Concatenate()(list(state.values())) if isinstance(state, dict) else state
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(last)))
    expected = alone(model, x)
    assert len(set(expected["depth"].ravel())) > 1
    assert_same(ki.predict_stream(model, x, BATCH), expected)


def test_sequences_of_mixed_lengths_are_padded_and_masked():
    keras.utils.set_random_seed(0)
    model = ki.create_model("deep_thinking", (12, 1, 1), 2, filters=4, max_unroll=9, threshold=0.02)
    rng, ends = np.random.default_rng(0), [3, 12, 7, 5, 12, 4, 9]
    x = np.full((len(ends), 12, 1, 1), PADDING, np.float32)
    for n, end in enumerate(ends):
        x[n, :end] = rng.normal(size=(end, 1, 1)) * 2.0 ** rng.integers(-3, 3)
    found = ki.predict_stream(model, x, 3)
    assert len(set(found["depth"].ravel())) > 2
    for n, end in enumerate(ends):
        one = alone(model, x[n : n + 1, :end])
        assert one["depth"] == found["depth"][n]
        np.testing.assert_allclose(
            found["outputs"][n, :end], one["outputs"][0], rtol=1e-4, atol=1e-5
        )


def test_a_readout_is_returned_and_the_rule_counts_from_min_unroll():
    keras.utils.set_random_seed(0)
    rule = StablePrediction(keras.layers.Dense(5), 2)
    block = Iterate(GRUUpdate(), 9, rule, min_unroll=4, returns=("readout",))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, block(inputs)["readout"])
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    found = ki.predict_stream(model, x, 2)
    assert found["depth"].min() >= 4
    assert_same(found, alone(model, x))


def test_samples_at_the_limit_and_not_finite_have_their_status(net):
    x = images()
    x[4, 0, 0, 0] = np.nan
    ki.set_depth(net, max_unroll=5)
    found = ki.predict_stream(net, x, BATCH)
    assert set(found["status"][:, 1]) == set(Status)
    assert found["status"][4, 1] == Status.NOT_FINITE
    assert_same(found, alone(net, x))


def test_nested_in_a_sequential_model_with_the_settings_of_the_moment(net):
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Rescaling(0.5), net])
    x = images()
    for threshold in (0.05, 0.5):
        ki.set_depth(model, threshold=threshold)
        assert_same(ki.predict_stream(model, x, BATCH), alone(model, x))


def test_several_inputs_and_outputs():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    state = ki.NAISDense(4, 20, 0.05, step_size=0.5)(keras.layers.Add()([a, b]))
    outputs = {"state": state, "sum": keras.layers.Dense(2)(keras.layers.Concatenate()([state, b]))}
    model = keras.Model({"a": a, "b": b}, outputs)
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(9, 4)).astype(np.float32) for name in "ab"}
    assert_same(ki.predict_stream(model, x, BATCH), alone(model, x))


def test_the_forms_of_a_data_set():
    x, labels = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32), np.arange(11)
    net = dense(threshold=0.3, step_size=0.5)
    expected = alone(net, x)
    data = tf.data.Dataset.from_tensor_slices((x, labels))
    forms = {
        "pair": (x, labels),
        "batches of another size": data.batch(3),
        "batches without labels": [x[:1], x[1:8], x[8:]],
        "two batches without labels": [x[:6], x[6:]],
        "two batches": [(x[:6], labels[:6]), (x[6:], labels[6:])],
        "larger batches": iter([(x[:9], labels[:9]), (x[9:], labels[9:])]),
        "float64": x.astype(np.float64),
    }
    for form in forms.values():
        assert_same(ki.predict_stream(net, form, BATCH), expected)
    # As many samples in the second batch as in the first: not one pair of inputs and labels.
    assert_same(ki.predict_stream(net, [x, x], BATCH), alone(net, np.concatenate([x, x])))


def test_the_model_is_as_before(net):
    (*_, block) = ki.iterated_blocks(net)
    ki.predict_stream(net, images(), BATCH)
    assert "call" not in vars(block)
    with pytest.raises(ValueError, match="shape"):
        ki.predict_stream(net, np.zeros((3, 6, 6, 5)), BATCH)
    assert "call" not in vars(block)


def dense(**settings):
    inputs = keras.Input((4,))
    return keras.Model(inputs, ki.NAISDense(4, 5, name="block", **settings)(inputs))


def twice():
    inputs, block = keras.Input((4,)), ki.NAISDense(4, 5, 0.1, name="block")
    return keras.Model(inputs, block(block(inputs)))


def with_states():
    inputs = keras.Input((4,))
    block = Iterate(GRUUpdate(), 5, 0.1, returns=("states",), name="block")
    return keras.Model(inputs, block(inputs)["states"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (dense, r"one call of one block with a stopping threshold.*with 0 such calls, \[\]"),
        (twice, r"with 2 such calls, \['block', 'block#2'\]"),
        (lambda: dense(threshold=0.1, tied=False), "'block' of `model` cannot be .*: it is untied"),
        (
            lambda: dense(threshold=0.1, activation="tanh", solver="anderson"),
            "keeps a history of the whole batch",
        ),
        (with_states, "it returns the states after all updates"),
    ],
)
def test_other_models_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        ki.predict_stream(make(), np.zeros((3, 4), np.float32))


@pytest.mark.parametrize(
    ("dataset", "batch_size", "said"),
    [
        (np.zeros((0, 4)), 64, "at least one sample"),
        ([np.zeros((1, 4)), np.zeros((1, 5)), np.zeros((1, 4))], 64, r"one shape.*\(4,\).*\(5,\)"),
        (np.zeros((3, 4)), 0, "`batch_size` must be an integer"),
        (tf.data.Dataset.from_tensors(np.zeros((1, 4))).repeat(), 64, "must be finite"),
        (7, 64, "must be batches"),
    ],
)
def test_other_data_is_refused(dataset, batch_size, said):
    with pytest.raises(ValueError, match=said):
        ki.predict_stream(dense(threshold=0.1), dataset, batch_size)
