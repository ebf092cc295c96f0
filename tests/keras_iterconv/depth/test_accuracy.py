"""Accuracy by depth against nets that are built with each depth, counted sample by sample."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.numpy_double import NumpyDouble

FIELDS = (
    "accuracy",
    "standard_error",
    "updates",
    "share_of_fixed_depth",
    "share_at_limit",
    "share_not_finite",
)


def count(model, x, labels, fixed_depth):
    """Run a net layer by layer, and count what a point says."""
    state, depths, statuses = x, [], []
    for layer in model.layers[1:]:
        if isinstance(layer, ki.IteratedBlock):
            state, depth, status = layer(state, return_depth=True)
            depths.append(depth.numpy())
            statuses.append(status.numpy())
        else:
            state = layer(state).numpy()
    right = updates = at_limit = not_finite = 0
    for i, row in enumerate(state):
        targets = set(np.flatnonzero(labels[i])) if np.ndim(labels[i]) else {int(labels[i])}
        answer = set(np.argsort(-row)[: len(targets)])
        right += answer == targets and np.isfinite(row).all()
        updates += sum(depth[i] for depth in depths)
        at_limit += sum(status[i] == 1 for status in statuses)
        not_finite += sum(status[i] == 2 for status in statuses)
    n = len(x)
    p = right / n
    return (
        p,
        math.sqrt(p * (1 - p) / n),
        updates / n,
        updates / n / fixed_depth,
        at_limit / n / len(depths),
        not_finite / n / len(depths),
    )


def check(point, expected):
    assert tuple(getattr(point, name) for name in FIELDS) == pytest.approx(expected)


def test_each_point_is_that_of_a_net_built_so(make_net, images, labels):
    model = make_net()
    report = ki.accuracy_by_depth(model, (images, labels), [3, 1, 20], [0.5, 0.003, 1e-4])
    assert (report.name, report.samples, report.fixed_depth) == ("net", 40, 24)
    check(report.own, count(make_net(), images, labels, 24))
    assert [(p.max_unroll, p.threshold) for p in report.by_max_unroll] == [
        (1, 0.03),
        (3, 0.03),
        (20, 0.03),
    ]
    for point in report.by_max_unroll:
        check(point, count(make_net(max_unroll=point.max_unroll), images, labels, 24))
    assert [(p.max_unroll, p.threshold) for p in report.by_threshold] == [
        (12, 0.5),
        (12, 0.003),
        (12, 1e-4),
    ]
    for point in report.by_threshold:
        check(point, count(make_net(threshold=point.threshold), images, labels, 24))
    points = (*report.by_max_unroll, *report.by_threshold)
    assert len({point.accuracy for point in points}) > 2
    assert len({point.share_at_limit for point in points}) > 2


def test_a_fixed_net_can_be_asked_for_thresholds(make_net, images, labels):
    model = make_net(threshold=None)
    model.compile()
    before = model.predict(images, verbose=0)
    report = ki.accuracy_by_depth(model, (images, labels), [2, 12], [0.1, None])
    assert [p.threshold for p in report.by_threshold] == [0.1, None]
    check(report.by_threshold[0], count(make_net(threshold=0.1), images, labels, 24))
    check(report.by_max_unroll[0], count(make_net(2, None), images, labels, 24))
    assert report.by_threshold[1] == report.by_max_unroll[1] == report.own
    assert report.own.share_at_limit == report.own.share_of_fixed_depth == 1
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_a_net_whose_blocks_differ(make_net, images, labels):
    model = make_net(second={"max_unroll": 5, "threshold": None})
    report = ki.accuracy_by_depth(model, (images, labels), [4], [0.1])
    assert report.fixed_depth == 12 + 5
    assert (report.own.max_unroll, report.own.threshold) == ("mixed", "mixed")
    assert report.by_max_unroll[0].threshold == "mixed"
    assert report.by_threshold[0].max_unroll == "mixed"
    check(report.own, count(model, images, labels, 17))
    expected = make_net(4, second={"threshold": None})
    check(report.by_max_unroll[0], count(expected, images, labels, 17))
    expected = make_net(threshold=0.1, second={"max_unroll": 5})
    check(report.by_threshold[0], count(expected, images, labels, 17))


@pytest.mark.parametrize(
    ("own", "max_unrolls"),
    [
        ((1, None), [1]),
        ((5, None), [1, 2, 3, 5]),
        ((12, 0.5), [1, 2, 3, 5, 10, 12]),
        ((100, 1e-4), [1, 2, 3, 5, 10, 20, 30, 50, 100]),
    ],
)
def test_max_unrolls_when_none_are_given(make_net, images, labels, own, max_unrolls):
    report = ki.accuracy_by_depth(make_net(*own), (images[:2], labels[:2]), thresholds=[])
    assert [p.max_unroll for p in report.by_max_unroll] == max_unrolls
    assert report.by_max_unroll[-1] == report.own


def changes(model, x):
    """Return the norms of all updates at the fixed depth, `[blocks, updates, N]`, in NumPy."""
    norms, state = [], x
    for block in model.layers[1:-1]:
        double, u = NumpyDouble(block), state
        state = np.zeros((len(x), block.units))
        for _ in range(block.max_unroll):
            change = double.change(state, u)
            norms.append(np.linalg.norm(change, axis=1))
            state = state + change
    return np.reshape(norms, (2, -1, len(x)))


@pytest.mark.parametrize("own", [(12, 0.5), (12, None), (100, 1e-4), (30, 2e3), (12, 1e-9)])
def test_thresholds_when_none_are_given(make_net, images, labels, own):
    """They go from all that stop at once to none that stops, whatever the model's own one."""
    report = ki.accuracy_by_depth(make_net(*own), (images, labels), max_unrolls=[])
    points = report.by_threshold
    if own[1] is not None:
        assert own[1] in [p.threshold for p in points]
    points = [p for p in points if p.threshold != own[1]]
    updates = np.array([p.updates for p in points])
    assert updates[0] == 2
    assert (updates[1:] > updates[:-1]).all()
    assert len(points) >= 6
    norms = changes(make_net(own[0], None), images)
    # Where the first changes are below the threshold, all samples stop; the next one is not far.
    assert norms[0, 0].max() < points[0].threshold < 3 * norms[:, 0].max()
    if norms[:, :-1].min() > points[0].threshold / 1e6:
        assert updates[-1] == 2 * own[0]
        # The last update is made whatever its norm.
        assert norms[:, :-1].min() >= points[-1].threshold
    # About the same factor from each row to the next.
    ratios = np.diff(np.log(updates))
    assert ratios.max() < 3 * np.log(updates[-1] / updates[0]) / 6


def test_a_net_whose_depth_depends_on_no_threshold_has_no_rows(make_net, images, labels):
    assert ki.accuracy_by_depth(make_net(1, None), (images, labels)).by_threshold == ()
    images[:] = 0
    assert len(ki.accuracy_by_depth(make_net(9), (images, labels)).by_threshold) < 8


def test_the_defaults_of_mixed_untied_blocks_can_be_set(make_net, images, labels):
    model = make_net(7, 0.1, {"max_unroll": 4, "threshold": 0.2}, tied=False)
    report = ki.accuracy_by_depth(model, (images[:2], labels[:2]))
    assert [p.max_unroll for p in report.by_max_unroll] == [1, 2, 3, 4]
    assert report.by_threshold[0].updates == 2
    assert [block.threshold for block in ki.iterated_blocks(model)] == [0.1, 0.2]


@pytest.mark.parametrize("kind", ["one-hot", "sets", "column"])
def test_labels_of_other_kinds(make_net, images, labels, kind):
    if kind == "column":
        given = labels[:, None]
        one_by_one = labels
    else:
        given = one_by_one = np.eye(4, dtype=int)[labels]
        if kind == "sets":
            given[np.arange(40), np.argsort(-make_net()(images).numpy())[:, 1]] = 1
    report = ki.accuracy_by_depth(make_net(), (images, given), [2], [])
    check(report.own, count(make_net(), images, one_by_one, 24))
    check(report.by_max_unroll[0], count(make_net(max_unroll=2), images, one_by_one, 24))
    assert 0 < report.own.accuracy < 1


def test_a_sample_is_right_where_all_its_positions_are(images, labels):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(images.shape[1:])
    state = ki.NAISDense(8, max_unroll=9)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Reshape((2, 4))(keras.layers.Dense(8)(state)))
    given = model(images).numpy().argmax(axis=-1)
    given[::3, 1] = labels[::3]
    report = ki.accuracy_by_depth(model, (images, given), [1, 3, 9], [])
    for point in report.by_max_unroll:
        ki.set_depth(model, max_unroll=point.max_unroll)
        right = model(images).numpy().argmax(axis=-1) == given
        assert point.accuracy == pytest.approx(np.mean([all(row) for row in right]))
    assert 0.3 < report.own.accuracy < right.mean()
    assert report.by_max_unroll[0].accuracy != report.own.accuracy


def test_a_regression_is_refused(make_net, images):
    model = make_net()
    numbers = np.random.default_rng(0).normal(size=(len(images), 4))
    with pytest.raises(ValueError, match=r"`labels` must be class numbers \[N\].*a regression"):
        ki.accuracy_by_depth(model, (images, numbers), [1], [])
    assert ki.processing_depth(model) == ki.processing_depth(make_net())


def test_batches_of_all_kinds_say_the_same(make_net, images, labels):
    expected = ki.accuracy_by_depth(make_net(), (images, labels))
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    once = ((images[i : i + 9], labels[i : i + 9]) for i in range(0, 40, 9))
    for batches in (dataset, once):
        assert ki.accuracy_by_depth(make_net(), batches) == expected


def test_samples_that_are_not_finite_are_wrong_and_counted(make_net, images, labels):
    images[4] = np.nan
    report = ki.accuracy_by_depth(make_net(), (images, labels), [1], [])
    assert report.own.share_not_finite == 1 / 40
    check(report.own, count(make_net(), images, labels, 24))
    check(report.by_max_unroll[0], count(make_net(max_unroll=1), images, labels, 24))


class CutOffError(Exception):
    """What no code would catch by accident."""


@pytest.mark.parametrize("threshold", [0.03, None])
@pytest.mark.parametrize("error", [CutOffError, KeyboardInterrupt])
def test_a_net_that_is_cut_off_has_its_own_depth_again(make_net, images, labels, threshold, error):
    def batches():
        yield images, labels
        raise error

    model = make_net(12, threshold, {"max_unroll": 5})
    model.compile()
    before = model.predict(images, verbose=0)
    with pytest.raises(error):
        ki.accuracy_by_depth(model, batches(), [1, 2], [0.5])
    assert [b.max_unroll for b in ki.iterated_blocks(model)] == [12, 5]
    assert [b.threshold for b in ki.iterated_blocks(model)] == [threshold] * 2
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


@pytest.mark.parametrize(("threshold", "graphs"), [(0.03, 1), (None, 2)])
def test_a_graph_serves_all_settings_of_its_kind(
    make_net, images, labels, monkeypatch, threshold, graphs
):
    traced = []
    call = ki.NAISDense.call

    def counted(self, *args, **kwargs):
        traced.append(self.name)
        return call(self, *args, **kwargs)

    model = make_net(threshold=threshold)
    monkeypatch.setattr(ki.NAISDense, "call", counted)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    ki.accuracy_by_depth(model, dataset, [1, 2, 5], [0.1, 0.2])
    assert sorted(traced) == ["first"] * graphs + ["second"] * graphs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_unrolls": 3}, r"`max_unrolls` must be a list.*Received: max_unrolls=3"),
        ({"thresholds": "0.1"}, r"`thresholds` must be a list.*Received: thresholds='0.1'"),
        ({"max_unrolls": [1, 0]}, r"`max_unroll` must be an integer.*Received: max_unroll=0"),
        ({"thresholds": [0.1, -1]}, r"`threshold` must lie in.*Received: threshold=-1"),
        ({"thresholds": [[0.1]]}, r"`threshold` must lie in.*Received: threshold=\[0.1\]"),
    ],
)
def test_bad_settings_are_found_before_the_data_are_read(make_net, given, message):
    def batches():
        pytest.fail("the data were read")
        yield

    model = make_net()
    with pytest.raises(ValueError, match=message):
        ki.accuracy_by_depth(model, batches(), **given)
    assert ki.processing_depth(model) == 24


def test_bad_data_and_models(make_net, images, labels):
    for empty in ([], (images[:0], labels[:0])):
        with pytest.raises(ValueError, match=r"`dataset` must hold at least one image"):
            ki.accuracy_by_depth(make_net(), empty)
    endless = tf.data.Dataset.from_tensors((images, labels)).repeat()
    with pytest.raises(ValueError, match="`dataset` must be finite, or `samples`"):
        ki.accuracy_by_depth(make_net(), endless)
    with pytest.raises(ValueError, match="a label for each image"):
        ki.accuracy_by_depth(make_net(), (images, labels[1:]))
    inputs = keras.Input((5,))
    plain = keras.Model(inputs, keras.layers.Dense(4)(inputs), name="plain")
    with pytest.raises(ValueError, match="model='plain' without one"):
        ki.accuracy_by_depth(plain, (images, labels))


@pytest.mark.parametrize("kind", ["tf.data", "generator", "arrays"])
def test_the_first_images_of_a_data_set_without_an_end(make_net, images, labels, kind):
    def generate():
        while True:
            yield images[:16], labels[:16]
            yield images[16:32], labels[16:32]
            yield images[32:], labels[32:]

    endless = {
        "tf.data": tf.data.Dataset.from_tensor_slices((images, labels)).batch(16).repeat(),
        "generator": generate(),
        "arrays": (images, labels),
    }[kind]
    report = ki.accuracy_by_depth(make_net(), endless, [3], [], samples=24)
    expected = ki.accuracy_by_depth(make_net(), (images[:24], labels[:24]), [3], [])
    assert report == expected
    assert report.samples == 24


def test_no_batch_is_read_after_the_last_image(make_net, images, labels):
    def batches():
        yield images, labels
        raise AssertionError("another batch was read")

    assert ki.accuracy_by_depth(make_net(), batches(), [3], [], samples=40).samples == 40
    fewer = ki.accuracy_by_depth(make_net(), (images, labels), [3], [], samples=41)
    assert fewer.samples == 40


def test_a_number_of_images_is_checked_before_one_is_read(make_net):
    with pytest.raises(ValueError, match=r"`samples` must be an integer.*Received: samples=0"):
        ki.accuracy_by_depth(make_net(), None, samples=0)
