"""Indices against a slow loop over the definitions, and of nets made to have known ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.stage_nets import CLASSES, unit, zeros_and_class_two

INDICES = ("convergence", "recurrence", "divergence")
# For small nets that is much quicker.
pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture
def traced(untraced):
    """Trace all the same."""
    tf.config.run_functions_eagerly(False)


def error(logits, labels):
    """The share of samples whose n largest logits are not their n targets."""
    wrong = 0
    for row, label in zip(logits, labels, strict=True):
        targets = {c for c in range(len(row)) if label[c]} if np.ndim(label) else {int(label)}
        wrong += {int(c) for c in np.argsort(-row)[: len(targets)]} != targets
    return wrong / len(labels)


def slow_loop(nets, model, x, labels, name, chance):
    """Apply the definitions of the errata one perturbed net at a time."""
    stage = model.get_layer(name)
    T, blocks = stage.blocks, list(range(stage.blocks))

    def e(schedule):
        return error(nets.run(model, x, name, schedule), labels)

    full = error(model(x).numpy(), labels)
    early = [e(blocks[:t]) for t in range(1, T + 1)]
    left_out = [e(blocks[: t - 1] + blocks[t:]) for t in range(1, T + 1)]
    repeated = [e(blocks + [T - 1] * k) for k in range(1, 17)]
    if T == 1:
        return (early, left_out, repeated), (np.nan, np.nan, np.nan)
    CI = 1 - np.mean([(early[t] - full) / (chance - full) for t in range(T - 1)])
    last = left_out[-1]
    RI = 1 - np.mean([(left_out[t] - last) / (chance - last) for t in range(T - 1)])
    DI = np.mean([(repeated[k] - full) / (chance - full) for k in range(16)])
    return (early, left_out, repeated), (CI, RI, DI)


def class_labels(logits, flipped=10):
    """The net's own answers, but for some, so that it is good and not perfect."""
    labels = np.argmax(logits, axis=1)
    labels[:flipped] = (labels[:flipped] + 1) % CLASSES
    return labels


@pytest.mark.parametrize(
    ("blocks", "skip_from", "cap"),
    [
        ((3, 2), "previous", None),
        ((1, 4), "stage_input", None),
        ((2, 3), "stage_input", 0.95),
        ((3, 1), "previous", 0.95),
    ],
)
def test_curves_and_indices_are_those_of_a_slow_loop(nets, blocks, skip_from, cap):
    model = nets.chain(blocks, skip_from, cap)
    x = nets.images(120)
    labels = class_labels(model(x).numpy())
    report = ki.measure_indices(model, (x, labels), resamples=20)
    assert report.stages == [f"stage{s}" for s in range(len(blocks))]
    assert report.samples == 120
    assert report.chance == pytest.approx(0.75)
    assert report.error == pytest.approx(10 / 120)
    varied = set()
    for s, name in enumerate(report.stages):
        curves, indices = slow_loop(nets, model, x, labels, name, 0.75)
        for got, expected in zip(report.errors[s], curves, strict=True):
            # One sample may lie on the border between two classes.
            np.testing.assert_allclose(got, expected, rtol=0, atol=1.01 / 120)
            varied |= set(expected)
        got = [getattr(report, index)[s] for index in INDICES]
        np.testing.assert_allclose(got, indices, rtol=0, atol=0.05)
        assert set(report.reasons[s]) == (set(INDICES) if blocks[s] == 1 else set())
    assert len(varied) > 5


def test_other_forms_of_a_model_have_the_indices_of_its_graph(nets):
    model = nets.chain((3,))
    x = nets.images(60)
    labels = class_labels(model(x).numpy())
    sequential = keras.Sequential([keras.Input(x.shape[1:]), *model.layers[1:]])
    named = keras.Model(model.inputs, {"answer": model.outputs[0]})
    expected, *others = (
        ki.measure_indices(each, (x, labels), resamples=20) for each in (model, sequential, named)
    )
    for found in others:
        assert found.to_dict() == expected.to_dict()


def test_multi_hot_labels(nets):
    model = nets.chain((3,))
    x = nets.images(120)
    order = np.argsort(-model(x).numpy(), axis=1)
    labels = np.zeros((120, CLASSES), np.int32)
    for i, row in enumerate(order):
        # One, two or three targets; the first ones are made wrong.
        labels[i, row[: 1 + i % 3] if i >= 6 else row[1 : 2 + i % 3]] = 1
    report = ki.measure_indices(model, (x, labels), resamples=20)
    chance = np.mean([3 / 4, 5 / 6, 3 / 4])
    assert report.chance == pytest.approx(chance)
    assert report.error == pytest.approx(6 / 120)
    curves, indices = slow_loop(nets, model, x, labels, "stage0", chance)
    for got, expected in zip(report.errors[0], curves, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1.01 / 120)
    got = [getattr(report, index)[0] for index in INDICES]
    np.testing.assert_allclose(got, indices, rtol=0, atol=0.05)


def test_labels_of_positions(nets):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 2, 2))
    stage = ki.ResidualStage(2, 3, name="stage")
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(stage(inputs)))
    x = np.random.default_rng(0).normal(size=(60, 3, 2, 2)).astype(np.float32)
    labels = model(x).numpy().argmax(axis=-1)
    labels[:10, 2, 0] = (labels[:10, 2, 0] + 1) % CLASSES
    report = ki.measure_indices(model, (x, labels), resamples=20)
    assert report.chance == pytest.approx(1 - 1 / CLASSES**6)
    assert report.error == pytest.approx(10 / 60)
    for t, early in enumerate(report.errors[0].early_readout):
        found = nets.run(model, x, "stage", list(range(t + 1))).argmax(axis=-1)
        wrong = [np.any(one != label) for one, label in zip(found, labels, strict=True)]
        assert early == pytest.approx(np.mean(wrong), abs=1.01 / 60)
    assert report.errors[0].early_readout[0] > 0.3


@pytest.mark.usefixtures("traced")
def test_batches_of_any_size_and_arrays_say_the_same(nets):
    model, x = nets.chain((2, 2)), nets.images(61)
    labels = class_labels(model(x).numpy())
    pairs = tf.data.Dataset.from_tensor_slices((x, labels))
    reports = [
        ki.measure_indices(model, data, resamples=10)
        for data in (
            (x, labels),
            [x, labels],
            (tf.constant(x), list(labels)),
            pairs.batch(7),
            pairs.batch(61),
            pairs.batch(30).map(lambda image, label: (image, label[:, None])),
            [(x[:60], labels[:60]), (x[60:], labels[60:])],
            [(x[:1], labels[:1]), (x[1:5], labels[1:5]), (x[5:], labels[5:])],
            ((x[i : i + 20], labels[i : i + 20]) for i in range(0, 61, 20)),
        )
    ]
    for report in reports[1:]:
        assert report.to_dict() == reports[0].to_dict()


def test_a_model_can_be_measured_again(nets):
    model, x = nets.chain((2, 2)), nets.images(40)
    labels = class_labels(model(x).numpy())
    first = ki.measure_indices(model, (x, labels), resamples=10)
    config = model.to_json()
    for _ in range(2):
        again = ki.measure_indices(model, (x, labels), resamples=10)
        assert again.to_dict() == first.to_dict()
    # Weights are read anew.
    model.get_layer("head").kernel.assign(-model.get_layer("head").kernel)
    assert ki.measure_indices(model, (x, labels), resamples=10).error != first.error
    assert model.to_json() == config


def test_a_model_can_be_measured_beside_others_of_its_layers(nets):
    model, x = nets.chain((2, 2)), nets.images(40)
    labels = class_labels(model(x).numpy())
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    ki.with_depth(model)
    keras.Model(model.get_layer("stage1").input, model.output)
    reports = [ki.measure_indices(m, (x, labels), resamples=10) for m in (model, twin)]
    assert reports[0].to_dict() == reports[1].to_dict()


@pytest.mark.usefixtures("traced")
def test_a_measured_model_is_as_it_was(nets, tmp_path):
    model, x = nets.chain((2, 2), "stage_input", 0.95), nets.images(40)
    labels = class_labels(model(x).numpy())
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    weights, config, logits = model.get_weights(), model.to_json(), model(x).numpy()
    report = ki.measure_indices(model, (x, labels), resamples=10)
    assert model.to_json() == config
    np.testing.assert_array_equal(model(x), logits)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert ki.measure_indices(loaded, (x, labels), resamples=10).to_dict() == report.to_dict()
    model.fit(x, labels, epochs=1, verbose=0)


@pytest.mark.usefixtures("traced")
def test_half_precision_nets(nets):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, x = nets.chain((2, 2)), nets.images(40)
    labels = class_labels(tf.cast(model(x), "float32").numpy())
    report = ki.measure_indices(model, (x, labels), resamples=10)
    assert report.error == pytest.approx(10 / 40)
    assert np.isfinite(report.convergence).all()


def test_an_identity_tail_converges_where_it_begins(nets):
    # Block 3 of 5 decides; what follows adds nothing.
    nothing = np.zeros(CLASSES)
    model = nets.adding([nothing, nothing, unit(2), nothing, nothing])
    report = ki.measure_indices(model, zeros_and_class_two(), resamples=20)
    np.testing.assert_array_equal(report.errors[0].early_readout, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(report.errors[0].left_out, [0, 0, 1, 0, 0])
    assert report.error == 0
    # Two of four early readouts miss by 1 where chance misses by 3/4.
    assert report.convergence[0] == pytest.approx(1 - (2 / 4) / 0.75)
    # Without the last block, an identity, nothing is lost.
    assert report.recurrence[0] == pytest.approx(1 - (1 / 4) / 0.75)
    assert report.divergence[0] == 0
    np.testing.assert_allclose(report.intervals["convergence"], [[1 / 3, 1 / 3]], atol=1e-6)


def test_a_first_block_that_decides_converges_at_once(nets):
    nothing = np.zeros(CLASSES)
    model = nets.adding([unit(2), nothing, nothing])
    report = ki.measure_indices(model, zeros_and_class_two(), resamples=20)
    assert report.convergence[0] == 1
    assert report.recurrence[0] == pytest.approx(1 - 0.5 / 0.75)


@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_equal_blocks_are_missed_equally(nets, blocks):
    # Class 1 leads at first; only all steps together bring class 2 before it.
    model = nets.adding([unit(2)] * blocks)
    x, labels = zeros_and_class_two()
    x += unit(1, blocks - 0.5).astype(np.float32)
    x[:16, ..., 1] = 0
    report = ki.measure_indices(model, (x, labels), resamples=20)
    np.testing.assert_array_equal(report.errors[0].left_out, np.full(blocks, 0.75))
    # d_T is chance here: undefined, although all are equal.
    assert np.isnan(report.recurrence[0])
    x[:32, ..., 1] = 0
    report = ki.measure_indices(model, (x, labels), resamples=20)
    np.testing.assert_array_equal(report.errors[0].left_out, np.full(blocks, 0.5))
    assert report.recurrence[0] == 1
    np.testing.assert_array_equal(report.errors[0].repeated, np.zeros(16))
    assert report.divergence[0] == 0
    assert report.convergence[0] == pytest.approx(1 - 0.5 / 0.75)


def test_a_last_block_missed_less_than_the_others_gives_more_than_one(nets):
    # Left out, the last block breaks half of the samples, the first a quarter.
    model = nets.adding([unit(2), unit(2, 2)])
    x, labels = zeros_and_class_two()
    x[:16, ..., 1] = 1.5
    x[16:32, ..., 1] = 2.5
    report = ki.measure_indices(model, (x, labels), resamples=20)
    np.testing.assert_array_equal(report.errors[0].left_out, [0.25, 0.5])
    assert report.recurrence[0] == pytest.approx(1 - (0.25 - 0.5) / (0.75 - 0.5))
    assert report.recurrence[0] == pytest.approx(2)


def test_a_last_block_that_goes_on_diverges(nets):
    # Each run more adds 1 to class 3, which passes class 2 after the fifth further run.
    model = nets.adding([unit(2, 6.5), unit(3)])
    report = ki.measure_indices(model, zeros_and_class_two(), resamples=20)
    np.testing.assert_array_equal(report.errors[0].repeated, [0] * 5 + [1] * 11)
    assert report.divergence[0] == pytest.approx((11 / 16) / 0.75)


def test_a_contraction_at_its_fixed_point_does_not_diverge(nets):
    # From the stage's input each block gives the same state, however often it runs.
    model = nets.adding([unit(2), unit(2), unit(2)], skip_from="stage_input")
    report = ki.measure_indices(model, zeros_and_class_two(), resamples=20)
    assert report.divergence[0] == 0
    assert report.convergence[0] == 1
    np.testing.assert_array_equal(report.errors[0].left_out, np.zeros(3))


def test_a_net_at_chance_has_no_index(nets):
    model = nets.adding([unit(2), unit(2)])
    x, labels = zeros_and_class_two()
    labels[: len(labels) * 7 // 10] = 0
    report = ki.measure_indices(model, (x, labels), resamples=20)
    for index in INDICES:
        assert np.isnan(getattr(report, index)).all()
        assert np.isnan(report.intervals[index]).all()
        assert "two standard errors" in report.reasons[0][index]


def test_two_standard_errors_are_the_border(nets):
    # 64 samples: 0.75 - 2 sqrt(0.75 * 0.25 / 64) is 0.6417, between 41 and 42 wrong ones.
    model = nets.adding([unit(2), unit(2)])
    for wrong, undefined in ((41, False), (42, True)):
        x, labels = zeros_and_class_two()
        labels[:wrong] = 0
        report = ki.measure_indices(model, (x, labels), resamples=20)
        assert np.isnan(report.convergence[0]) == undefined
        assert report.error == wrong / 64


def test_a_stage_of_one_block_has_no_index(nets):
    report = ki.measure_indices(nets.adding([unit(2)]), zeros_and_class_two(), resamples=20)
    assert report.error == 0
    for index in INDICES:
        assert np.isnan(getattr(report, index)[0])
        assert report.reasons[0][index] == "a stage of one block has no index"
    np.testing.assert_array_equal(report.errors[0].early_readout, [0])
    np.testing.assert_array_equal(report.errors[0].left_out, [1])


def test_a_last_block_without_which_the_net_is_at_chance(nets):
    model = nets.adding([np.zeros(CLASSES), unit(2)])
    x, labels = zeros_and_class_two()
    x[:16] += unit(2, 0.5).astype(np.float32)
    report = ki.measure_indices(model, (x, labels), resamples=20)
    np.testing.assert_array_equal(report.errors[0].left_out, [0, 0.75])
    assert np.isnan(report.recurrence[0])
    assert np.isnan(report.intervals["recurrence"]).all()
    assert report.reasons == [{"recurrence": "without its last block the net is at chance"}]
    assert np.isfinite([report.convergence[0], report.divergence[0]]).all()


def test_a_net_that_overflows_when_run_on_is_wrong_there(nets):
    model = nets.adding([unit(2), unit(2, 3e38)])
    report = ki.measure_indices(model, zeros_and_class_two(), resamples=20)
    np.testing.assert_array_equal(report.errors[0].repeated, np.ones(16))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("blocks", [3, 6])
def test_states_along_a_stage_are_computed_once(nets, blocks, monkeypatch):
    model, x = nets.chain((blocks,)), nets.images(300)
    labels = np.zeros(300, int)
    runs = tf.Variable(0)
    evaluate = ki.ResidualStage._evaluate

    def counted(self, state, block):
        # Inside traced functions too: each run counts.
        runs.assign_add(1)
        return evaluate(self, state, block)

    monkeypatch.setattr(ki.ResidualStage, "_evaluate", counted)
    batches = tf.data.Dataset.from_tensor_slices((x, labels)).batch(150)
    ki.measure_indices(model, batches, resamples=1)
    # The intact net and the early readouts: T each; without block t: those behind it; 16 more.
    a_batch = 2 * blocks + blocks * (blocks - 1) // 2 + 16
    assert 2 * 16 < int(runs) <= 2 * a_batch
