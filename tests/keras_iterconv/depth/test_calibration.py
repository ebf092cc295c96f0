"""Calibrated thresholds against scans of thresholds, counted sample by sample."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.depth.depth_report import format_threshold
from tests.support.numpy_double import NumpyDouble

SCAN = np.logspace(-4, 1, 200)


@pytest.fixture
def data():
    x = np.random.default_rng(1).normal(size=(300, 5))
    return (x * np.logspace(-2, 1, 300)[:, None]).astype(np.float32)


def run(model, x):
    """Return predictions and updates of a net with any stopping rules."""
    outputs = ki.with_depth(model)(x)
    return outputs["logits"].numpy().argmax(axis=1), outputs["depth"].numpy().sum(axis=1)


def count(model, x, threshold=...):
    """Return predictions and updates of a net of NAIS blocks, computed in NumPy."""
    state, total = np.asarray(x, np.float64), np.zeros(len(x), int)
    for layer in model.layers[1:]:
        if isinstance(layer, keras.layers.Rescaling):
            state = state * layer.scale
        elif isinstance(layer, keras.layers.Dense):
            return (state @ layer.kernel.numpy() + layer.bias.numpy()).argmax(axis=1), total
        else:
            state, depth = iterate(layer, state, layer.threshold if threshold is ... else threshold)
            total += depth


def iterate(block, u, threshold):
    double, x = NumpyDouble(block), np.zeros((len(u), block.units))
    depth, active = np.zeros(len(u), int), np.ones(len(u), bool)
    for _ in range(block.max_unroll):
        change = double.change(x, u) * active[:, None]
        x, depth = x + change, depth + active
        active &= np.linalg.norm(change, axis=1) >= (threshold or 0)
    return x, depth


def thresholds_of(model):
    return [block.threshold for block in ki.iterated_blocks(model)]


def mean_and_error(values):
    return values.mean(), values.std() / math.sqrt(len(values))


@pytest.mark.parametrize(("own", "budget"), [(0.03, 9), (None, 9), (None, 4), (None, 15.5)])
def test_the_most_updates_within_a_budget(make_net, data, own, budget):
    model = make_net(threshold=own)
    # Labels without an error at the fixed depth, so that more updates never are less accurate.
    labels = count(model, data, None)[0]
    report = ki.calibrate_depth(model, (data, labels), mean_updates=budget)
    threshold, again = thresholds_of(model)
    assert threshold == again == report.own.threshold
    mean, error = mean_and_error(count(model, data)[1])
    assert (report.own.updates, report.own.updates_standard_error) == pytest.approx((mean, error))
    assert mean + 2 * error <= budget
    # A scan finds none that is better by more than the tolerance of the search.
    scanned = [count(model, data, t)[1] for t in SCAN]
    good = [depth.mean() for depth in scanned if sum_of_two(depth) <= budget]
    assert mean >= max(good) - max(0.01 * mean, 0.5 * error)


def sum_of_two(depth):
    mean, error = mean_and_error(depth)
    return mean + 2 * error


@pytest.mark.parametrize("own", [1e-3, None])
def test_the_fewest_updates_within_a_loss_of_accuracy(make_net, data, own):
    model = make_net(threshold=own)
    prediction, before = count(model, data)
    labels = prediction.copy()
    labels[::5] = (labels[::5] + 1) % 4
    right = prediction == labels

    def loss(threshold):
        lost = right.astype(int) - (count(model, data, threshold)[0] == labels)
        # Half a sample more of each pair of right and wrong: two values of 0, 1 / 2 and -1 / 2.
        squares = np.sum(lost**2) + 1
        mean = np.sum(lost) / 302
        return lost.mean() + 2 * math.sqrt((squares / 302 - mean**2) / 302)

    report = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.05)
    chosen = report.own.threshold
    prediction, depth = count(model, data, chosen)
    assert thresholds_of(model) == [chosen] * 2
    assert loss(chosen) <= 0.05
    assert report.before.accuracy == pytest.approx(right.mean())
    assert report.before.updates == pytest.approx(before.mean())
    assert report.own.accuracy == pytest.approx((prediction == labels).mean())
    assert report.own.updates == pytest.approx(depth.mean())
    assert report.own.updates < before.mean()
    # The next threshold that saves some percent more is beyond the budget.
    saving = [t for t in SCAN if count(model, data, t)[1].mean() < 0.96 * depth.mean()]
    assert loss(min(saving)) > 0.05


def test_the_report_is_of_before_and_after(make_net, images, labels):
    model = make_net(threshold=None)
    report = ki.calibrate_depth(model, (images, labels), mean_updates=10)
    assert (report.before.threshold, report.before.updates) == (None, 24)
    assert report.own.updates <= 10
    assert report.budget == {"mean_updates": 10}
    assert report.thresholds == tuple(thresholds_of(model))
    assert report.before.seconds > 0
    assert report.own.seconds > 0
    updates = [point.updates for point in report.by_threshold]
    assert updates == sorted(updates)
    assert report.own in report.by_threshold
    assert len(updates) <= 9
    assert ki.DepthReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    text = str(report)
    assert "before" in text
    assert "after" in text
    words = " ".join(text.split())
    assert (
        f"Calibrated to mean_updates 10 on 40 images: threshold {report.own.threshold:g}" in words
    )
    assert f"updates 24.0 and {report.own.updates:.1f}" in words
    assert max(map(len, text.splitlines())) <= 110


def test_the_report_says_why_a_threshold_was_kept(make_net, images, labels):
    model = make_net(threshold=0.03)
    report = ki.calibrate_depth(model, (images, labels), accuracy_loss=0.01)
    assert report.own.threshold == 0.03
    kept = "; no threshold of fewer updates met the budget: so few images show no loss below 0.048"
    assert len(images) == 40  # 2 / 42
    assert report.describe_calibration().endswith(kept)
    # Enough is allowed that fewer updates meet it.
    report = ki.calibrate_depth(model, (images, labels), accuracy_loss=0.9)
    assert report.own.threshold > 0.03
    assert "of fewer updates" not in report.describe_calibration()
    # The most updates are chosen of those within a budget of updates: others meet it too.
    limit = report.own.updates
    for _ in range(2):
        report = ki.calibrate_depth(model, (images, labels), mean_updates=limit)
    assert report.own.threshold == report.before.threshold
    assert "of fewer updates" not in report.describe_calibration()


def test_a_compiled_model_predicts_with_the_new_depth(make_net, images, labels):
    model = make_net(threshold=None)
    model.compile()
    before = model.predict(images, verbose=0)
    ki.calibrate_depth(model, (images, labels), mean_updates=6)
    after = model.predict(images, verbose=0)
    np.testing.assert_allclose(after, model(images), rtol=1e-5, atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("kind", ["tf.data", "shuffled", "generator"])
def test_batches_of_all_kinds_say_the_same(make_net, images, labels, kind):
    expected = ki.calibrate_depth(make_net(), (images, labels), accuracy_loss=0.1)
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    if kind == "shuffled":
        batches = batches.shuffle(40, seed=0)
    batches = batches.batch(7)
    if kind == "generator":
        batches = ((images[i : i + 9], labels[i : i + 9]) for i in range(0, 40, 9))
    report = ki.calibrate_depth(make_net(), batches, accuracy_loss=0.1)
    assert report.own.threshold == expected.own.threshold
    assert report.own.accuracy == expected.own.accuracy


def test_the_first_samples_of_endless_data(make_net, images, labels):
    endless = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16).repeat()
    report = ki.calibrate_depth(make_net(), endless, mean_updates=9, samples=24)
    expected = ki.calibrate_depth(make_net(), (images[:24], labels[:24]), mean_updates=9)
    assert report.samples == 24
    assert report.own.threshold == expected.own.threshold


def test_a_threshold_a_block(data):
    """The second block's changes are a hundredth of the first's, so one threshold fits none."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    settings = {"max_unroll": 60, "step_size": 0.5, "shift": 0.3, "activation": "tanh"}
    state = ki.NAISDense(6, name="large", **settings)(inputs)
    state = keras.layers.Rescaling(0.01)(state)
    state = ki.NAISDense(6, name="small", **settings)(state)
    state = keras.layers.Rescaling(100)(state)
    model = keras.Model(inputs, keras.layers.Dense(4)(state))
    labels = count(model, data)[0]
    common = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.02)
    ki.set_depth(model, threshold=None)
    each = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.02, per_block=True)
    large, small = thresholds_of(model)
    assert each.thresholds == (large, small)
    assert large > 3 * small
    assert each.own.threshold == "mixed"
    assert each.own.updates < 0.95 * common.own.updates
    prediction, depth = count(model, data)
    assert each.own.updates == pytest.approx(depth.mean())
    assert (prediction == labels).mean() == pytest.approx(each.own.accuracy)
    assert each.own.accuracy >= 0.98
    said = f"threshold {format_threshold(large)}, {format_threshold(small)};"
    assert said in " ".join(str(each).split())
    # Calibrated again, it is not worse.
    again = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.0, per_block=True)
    assert again.own.updates <= each.own.updates


def test_a_block_that_hardly_matters_stops_first(data):
    """Both blocks are alike, so neither one threshold nor equal shares of both can tell them."""
    keras.utils.set_random_seed(0)
    data = np.random.default_rng(2).permutation(data)  # The first ones shall be like the others.
    inputs = keras.Input((5,))
    settings = {"max_unroll": 60, "step_size": 0.5, "shift": 0.3, "activation": "tanh"}
    idle = ki.NAISDense(6, name="idle", **settings)(inputs)
    busy = ki.NAISDense(6, name="busy", **settings)(inputs)
    state = keras.layers.Concatenate()([keras.layers.Rescaling(1e-3)(idle), busy])
    model = keras.Model(inputs, keras.layers.Dense(4)(state))
    labels = run(model, data)[0]
    common = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.02)
    ki.set_depth(model, threshold=None)
    each = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.02, per_block=True)
    assert each.own.updates < 0.65 * common.own.updates
    prediction, depth = run(model, data)
    assert (prediction == labels).mean() >= 0.98
    assert depth.mean() == pytest.approx(each.own.updates)
    depth = ki.with_depth(model)(data)["depth"].numpy().mean(axis=0)
    names = [block.name for block in ki.iterated_blocks(model)]
    assert depth[names.index("idle")] < 0.3 * depth[names.index("busy")]


def test_a_net_that_is_more_accurate_with_fewer_updates(make_net, data):
    model = make_net(threshold=1e-4)
    labels = count(model, data, 0.5)[0]
    before = np.mean(count(model, data)[0] == labels)
    report = ki.calibrate_depth(model, (data, labels), accuracy_loss=0.005)
    assert report.before.accuracy == pytest.approx(before)
    assert report.own.accuracy > before
    assert report.own.updates < report.before.updates


def net_with_rule(stop, max_unroll=12):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    update = keras.layers.Dense(5, activation="tanh", kernel_initializer="orthogonal")
    state = ki.Iterate(update, max_unroll=max_unroll, stop=stop, name="block")(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(state))


@pytest.mark.parametrize("kind", ["stable", "halting", "divergence", "relative"])
def test_other_rules(data, kind):
    readout = keras.layers.Dense(1 if kind == "halting" else 4)
    stop = {
        "stable": lambda: ki.stop.StablePrediction(readout, threshold=2),
        "halting": lambda: ki.stop.Halting(readout),
        "divergence": lambda: ki.stop.ReadoutDivergence(readout, threshold=0.1),
        "relative": lambda: ki.stop.UpdateNorm(0.1, relative=True),
    }[kind]()
    model = net_with_rule(stop)
    (block,) = ki.iterated_blocks(model)
    # Labels without an error where none stops, so that more updates never are less accurate.
    block.threshold = stop.strictest_threshold(1e-6, 12)
    labels = run(model, data)[0]
    block.threshold = stop.threshold
    report = ki.calibrate_depth(model, (data, labels), mean_updates=7)
    mean, error = mean_and_error(run(model, data)[1])
    assert mean + 2 * error <= 7
    threshold = block.threshold
    if kind == "stable":
        assert threshold == int(threshold)
        # One more would exceed the budget.
        block.threshold = threshold + 1
        more = mean_and_error(run(model, data)[1])
        assert more[0] + 2 * more[1] > 7
    else:
        assert mean > 5
    table = ki.accuracy_by_depth(model, (data, labels), max_unrolls=[])
    updates = [point.updates for point in table.by_threshold]
    assert updates == sorted(updates)
    assert len(set(updates)) >= (4 if kind == "stable" else 5)
    assert report.by_threshold


def test_rules_of_several_kinds_need_a_threshold_a_block(data):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    make = lambda: keras.layers.Dense(5, activation="tanh", kernel_initializer="orthogonal")  # noqa: E731
    stable = ki.stop.StablePrediction(keras.layers.Dense(4), 3)
    state = ki.Iterate(make(), max_unroll=12, stop=stable, name="first")(inputs)
    state = ki.Iterate(make(), max_unroll=12, stop=1e-3, name="second")(state)
    model = keras.Model(inputs, keras.layers.Dense(4)(state))
    labels = run(model, data)[0]
    with pytest.raises(ValueError, match=r"`per_block` must be True.*StablePrediction and UpdateN"):
        ki.calibrate_depth(model, (data, labels), mean_updates=10)
    assert ki.accuracy_by_depth(model, (data, labels), []).by_threshold == ()
    report = ki.calibrate_depth(model, (data, labels), mean_updates=14, per_block=True)
    assert report.thresholds[0] == int(report.thresholds[0])
    mean, error = mean_and_error(run(model, data)[1])
    assert 11 < mean + 2 * error <= 14


@pytest.mark.parametrize("threshold", [0.03, None])
def test_a_budget_that_cannot_be_met_changes_nothing(make_net, images, labels, threshold):
    model = make_net(threshold=threshold)
    model.compile()
    before = model.predict(images, verbose=0)
    with pytest.raises(
        ValueError, match=r"`mean_updates` must be at least 2 for.*Received: mean_updates=1\.5"
    ):
        ki.calibrate_depth(model, (images, labels), mean_updates=1.5)
    assert thresholds_of(model) == [threshold] * 2
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)
    report = ki.calibrate_depth(model, (images, labels), mean_updates=2)
    assert report.own.updates == 2


def test_thresholds_of_the_blocks_own_lose_nothing(make_net, images):
    """With thresholds of their own the blocks are right; no common one is."""
    model = make_net(threshold=1e-3, second={"threshold": 3.0})
    labels = count(model, images)[0]
    wrong = [(count(model, images, t)[0] != labels).mean() for t in SCAN]
    assert min(wrong) > 0
    for per_block in (False, True):
        report = ki.calibrate_depth(model, (images, labels), accuracy_loss=0, per_block=per_block)
        assert thresholds_of(model) == [1e-3, 3.0]
        assert (report.own.accuracy, report.own.threshold) == (1, "mixed")
        assert report.own.updates == report.before.updates


@pytest.mark.parametrize("budget", [0.0, 0.005])
def test_few_images_cannot_show_a_small_loss(make_net, images, budget):
    """That nothing changes among 40 images is no proof: 2 standard errors are 2 / 42."""
    model = make_net(threshold=0.03)
    labels = count(model, images)[0]
    loose = min(t for t in SCAN if t > 0.03)
    assert np.array_equal(count(model, images, loose)[0], labels)
    report = ki.calibrate_depth(model, (images, labels), accuracy_loss=budget)
    assert thresholds_of(model) == [0.03] * 2
    assert report.own.updates == report.before.updates
    fixed = make_net(threshold=None)
    labels = count(fixed, images)[0]
    with pytest.raises(
        ValueError, match=rf"`accuracy_loss` must be at least 0\.0477 .* accuracy_loss={budget:g}$"
    ):
        ki.calibrate_depth(fixed, (images, labels), accuracy_loss=budget)
    assert thresholds_of(fixed) == [None] * 2
    report = ki.calibrate_depth(fixed, (images, labels), accuracy_loss=0.0477)
    assert report.own.accuracy == 1


class CutOffError(Exception):
    """What no code would catch by accident."""


def test_an_error_in_the_data_changes_nothing(make_net, images, labels):
    class Batches:
        reads = 0

        def __iter__(self):
            self.reads += 1
            yield images, labels
            if self.reads > 2:
                raise CutOffError

    model = make_net()
    with pytest.raises(CutOffError):
        ki.calibrate_depth(model, Batches(), mean_updates=9)
    assert thresholds_of(model) == [0.03] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "`accuracy_loss` or `mean_updates` must be given, and not both"),
        ({"accuracy_loss": 0.1, "mean_updates": 4}, "and not both.*mean_updates=4"),
        ({"accuracy_loss": 1}, r"`accuracy_loss` must lie in \[0, 1\).*accuracy_loss=1"),
        ({"accuracy_loss": -0.1}, r"`accuracy_loss` must lie in \[0, 1\)"),
        ({"accuracy_loss": "5%"}, r"`accuracy_loss` must lie.*Received: accuracy_loss='5%'"),
        ({"mean_updates": 0}, "`mean_updates` must be a positive number.*mean_updates=0"),
        ({"mean_updates": math.inf}, "`mean_updates` must be a positive number"),
        ({"mean_updates": math.nan}, "`mean_updates` must be a positive number"),
        ({"mean_updates": 4, "samples": 0}, "`samples` must be an integer"),
    ],
)
def test_bad_arguments(make_net, given, message):
    with pytest.raises(ValueError, match=message):
        ki.calibrate_depth(make_net(), None, **given)


def test_no_data(make_net, images, labels):
    with pytest.raises(ValueError, match="`dataset` must hold at least one image"):
        ki.calibrate_depth(make_net(), (images[:0], labels[:0]), mean_updates=9)
