"""The bound of a whole net: each rule against dense matrices, and every named net."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.certificates import certification
from keras_iterconv.certificates.network import network_bound
from keras_iterconv.layers import MaxPooling2D
from keras_iterconv.layers.rules.conv_rule import conv_block_gain
from keras_iterconv.layers.rules.dense_rule import dense_block_gain
from tests.support.builders import DISTINCT_NETS

L = keras.layers
ASCENDED = ("nais10", "nais_adaptive", "nais_mnist", "pcr_w8", "resnet_na_bn", "resnet_sh_stable")
INFINITY = ("nais1", "nais10", "nais_adaptive", "nais_fast")
ORDER = {"2": 2, "infinity": np.inf}


def as_matrix(model):
    """Return the matrix of an affine net, from what it does to each unit vector."""
    shape = model.input_shape[1:]
    size = int(np.prod(shape))
    units = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *shape)
    values = np.asarray(model(units.astype(np.float32)), np.float64).reshape(size + 1, -1)
    return (values[1:] - values[0]).T


def net(shape, *layers, seed=0):
    """Return a chain of layers with random weights."""
    inputs = keras.Input(shape)
    state = inputs
    for layer in layers:
        state = layer(state)
    model = keras.Model(inputs, state)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        sign = 1 if "variance" in weight.path else rng.choice([-1, 1], weight.shape)
        weight.assign(sign * rng.uniform(0.3, 2, weight.shape))
    return model


LINEAR = {
    "conv": [L.Conv2D(3, 3, padding="same")],
    "conv, strides": [L.Conv2D(3, 3, strides=(2, 3), padding="same")],
    "conv, valid": [L.Conv2D(3, (2, 3), strides=2, padding="valid", use_bias=False)],
    "normalisation": [L.BatchNormalization()],
    "normalisation, no scale": [L.BatchNormalization(scale=False, epsilon=0.1)],
    "conv and normalisation": [L.Conv2D(3, 3, strides=2, padding="same"), L.BatchNormalization()],
    "pool": [L.GlobalAveragePooling2D()],
    "scale": [L.Rescaling(-0.3, offset=2.0)],
    "average pool": [L.AveragePooling2D((3, 2))],
    "average pool, a border": [L.AveragePooling2D((4, 2), padding="same")],
    "average pool, one window": [L.AveragePooling2D((9, 9), padding="same")],
    "dense": [L.Flatten(), L.Dropout(0.5), L.Dense(5)],
    "dense on pixels": [L.Dense(5)],
}


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("what", LINEAR)
def test_linear_layers_are_measured_exactly(what, norm):
    model = net((6, 5, 2), *[type(layer).from_config(layer.get_config()) for layer in LINEAR[what]])
    bound, reason = network_bound(model, norm, {})
    assert reason is None
    assert bound == pytest.approx(np.linalg.norm(as_matrix(model), ORDER[norm]), rel=3e-4)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize(
    "layer",
    [L.MaxPooling2D(2, padding="same"), MaxPooling2D(2, padding="same"), L.GlobalMaxPooling2D()],
    ids=lambda layer: f"{type(layer).__module__.split('.')[0]} {type(layer).__name__}",
)
def test_the_bound_of_a_maximum_is_attained_and_not_passed(norm, layer):
    model = net((5, 4, 2), type(layer).from_config(layer.get_config()))
    assert network_bound(model, norm, {}) == (1.0, None)
    x = np.random.default_rng(0).normal(size=(200, 5, 4, 2)).astype(np.float32)
    raised = x.copy()
    raised[np.arange(200), 1, 1, 0] += 9
    y = x + 0.5 * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    def ratios(y):
        change = (np.asarray(model(y)) - np.asarray(model(x))).reshape(200, -1)
        return [
            np.linalg.norm(a, ORDER[norm]) / np.linalg.norm(b.ravel(), ORDER[norm])
            for a, b in zip(change, y - x, strict=True)
        ]

    assert max(ratios(y)) <= 1 + 1e-6
    assert 0.9 < max(ratios(raised)) <= 1 + 1e-6


def test_windows_that_overlap_have_no_bound_in_the_2_norm():
    model = net((6, 6, 2), L.MaxPooling2D(3, strides=2))
    assert network_bound(model, "infinity", {}) == (1.0, None)
    bound, reason = network_bound(model, "2", {})
    assert bound is None
    assert "overlap" in reason


@pytest.mark.parametrize("norm", ORDER)
def test_graphs(norm):
    inputs = keras.Input((4,))
    x = L.Dense(4)(inputs)
    zero = keras.ops.zeros_like(x)
    y = L.Add()([x, zero, inputs])
    y = y + L.Activation("sigmoid")(x)
    y = L.Concatenate()([y, L.ReLU(negative_slope=2.0)(inputs)])
    model = keras.Model(inputs, y)
    (kernel,) = (np.asarray(w, np.float64) for w in model.weights if w.name == "kernel")
    a = np.linalg.norm(kernel.T, ORDER[norm])
    expected = np.linalg.norm([a + 1 + a / 4, 2], ORDER[norm])
    bound, _ = network_bound(model, norm, {})
    assert bound == pytest.approx(expected)


REASONS = {
    "'foreign', a LayerNormalization": lambda x: L.LayerNormalization(name="foreign")(x),
    "activation of 'odd'": lambda x: L.Conv2D(2, 1, activation="exponential", name="odd")(x),
    "is discontinuous at its threshold": lambda x: L.ReLU(threshold=1.0)(x),
    "called with training=True": lambda x: L.BatchNormalization()(x, training=True),
    "only a plain Conv2D": lambda x: L.Conv2D(2, 3, dilation_rate=2)(x),
    "different shapes": lambda x: x + keras.ops.zeros_like(x)[:, :1],
    "'block' stops each sample": lambda x: ki.NAISConv2D(2, threshold=1e-3, name="block")(x),
}


@pytest.mark.parametrize("reason", REASONS)
def test_where_no_bound_follows_the_reason_is_given(reason):
    inputs = keras.Input((6, 6, 2))
    model = keras.Model(inputs, REASONS[reason](inputs))
    bound, why = network_bound(model, "2", {})
    assert bound is None
    if reason == "different shapes":  # the slice comes first
        assert "GetItem" in why
    else:
        assert reason in why


def test_a_size_that_is_not_known_leaves_the_infinity_norm():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, L.GlobalAveragePooling2D(name="pool")(inputs))
    assert "of the input of 'pool' is unknown" in network_bound(model, "2", {})[1]
    assert network_bound(model, "infinity", {})[0] == 1


def worst_stretch(doubles, K, start, drives, norm, h, tries=300):
    """Stretch by products of Jacobians with drawn slopes: none may pass a true bound."""
    rng = np.random.default_rng(0)
    n, m = drives[0].shape
    worst = 0
    for t in range(tries):
        J = start * np.eye(n, m)
        for k in range(K):
            at = k % len(doubles)
            slopes = rng.uniform(size=n) if t % 3 == 0 else rng.integers(0, 2, n).astype(float)
            if t == 1:
                slopes = np.ones(n)
            J = doubles[at].jacobian(slopes) @ J + h * slopes[:, None] * drives[at]
        worst = max(worst, np.linalg.norm(J, ORDER[norm]))
    return worst


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", ["zeros", "input", "autonomous"])
@pytest.mark.parametrize("size", [1.0, 2.5])
def test_gain_of_a_dense_block(norm, tied, how, size, set_weights, make_inputs, numpy_double):
    autonomous = how == "autonomous"
    layer = ki.NAISDense(
        6, max_unroll=5, step_size=0.8, tied=tied, non_autonomous=not autonomous,
        initial_state="zeros" if how == "zeros" else "input",
    )  # fmt: skip
    set_weights(layer, make_inputs("dense"), "random")
    layer.R.assign(layer.R * size)
    doubles = [numpy_double(layer, k) for k in range(1 if tied else 5)]
    drives = [np.zeros((6, 6)) if autonomous else d.B for d in doubles]
    start = 0 if how == "zeros" else 1
    worst = worst_stretch(doubles, 5, start, drives, norm, 0.8)
    gain = dense_block_gain(layer, norm)
    assert worst <= gain * (1 + 1e-6)
    # A bound is of use where it is not far off; expansive updates compound what is given away.
    assert size > 1 or gain <= 20 * worst


def test_gain_of_a_dense_block_is_exact_after_one_update_and_bounded_for_ever():
    layer = ki.NAISDense(6, max_unroll=1, step_size=0.3)
    layer.build((None, 4))
    B = layer.B.numpy().T
    assert dense_block_gain(layer, "2") == pytest.approx(0.3 * np.linalg.norm(B, 2))
    gains = []
    for K in (1000, 2000):
        layer = ki.NAISDense(6, max_unroll=K, step_size=0.3, shift=0.2)
        layer.build((None, 4))
        layer.B.assign(B.T)
        layer.R.assign(0.5 * np.eye(6))
        gains.append(dense_block_gain(layer, "2"))
    # P = 0.45 I: w = B u / 0.45, from zero at most ||w|| + ||w||.
    assert gains == pytest.approx([2 * np.linalg.norm(B, 2) / 0.45] * 2, rel=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("start", ["zeros", "input"])
@pytest.mark.parametrize("size", [1.0, 1.5])
def test_gain_of_a_convolutional_block(tied, start, size, set_weights, make_inputs, numpy_double):
    inputs = make_inputs("conv")
    layer = ki.NAISConv2D(6, max_unroll=3, step_size=0.7, tied=tied, initial_state=start)
    set_weights(layer, inputs, "random")
    layer.C.assign(layer.C * size)
    doubles = [numpy_double(layer, k) for k in range(1 if tied else 3)]
    drives = [double.B for double in doubles]
    worst = worst_stretch(doubles, 3, float(start == "input"), drives, "infinity", 0.7, tries=20)
    gain = conv_block_gain(layer)
    assert worst <= gain * (1 + 1e-6)
    assert gain <= 5 * worst


def test_gain_of_a_convolutional_block_stays_bounded():
    layer = ki.NAISConv2D(2, max_unroll=10_000, initial_state="zeros")
    layer.build((None, 5, 5, 2))
    layer.C.assign(layer.C * 0)
    layer.D.assign(np.full(layer.D.shape, 0.25))
    # Rows of I + C are 0: the input's part is all, 18 taps of 0.25.
    assert conv_block_gain(layer) == pytest.approx(4.5)


def test_gain_of_a_convolutional_block_knows_inactive_slopes_and_each_update():
    layer = ki.NAISConv2D(2, max_unroll=3, tied=False)
    layer.build((None, 5, 5, 2))
    layer.C.assign(layer.C * 0)
    D = np.zeros(layer.D.shape)
    layer.D.assign(D)
    # A ReLU that is never active hands the input on.
    assert conv_block_gain(layer) == 1
    D[1, 0, 0, 0, 0] = 3
    layer.D.assign(D)
    assert conv_block_gain(layer) == 3


@pytest.mark.parametrize("skip_from", ["previous", "stage_input"])
def test_stages_multiply_or_add(skip_from, conv_matrix, without_ascent):
    inputs = keras.Input((5, 4, 3))
    stage = ki.ResidualStage(3, 3, skip_from, name="stage")
    plain = stage(inputs)
    short = keras.Model(inputs, stage(inputs, schedule=[2, 0]))
    model = keras.Model(inputs, plain)
    report = ki.certify(model)
    c = [row.capped_bound for row in report.blocks]
    if skip_from == "previous":
        expected, of_short = np.prod([1 + v for v in c]), (1 + c[2]) * (1 + c[0])
    else:
        expected = 1 + c[2] * (1 + c[1] * (1 + c[0]))
        of_short = 1 + c[0] * (1 + c[2])
    assert report.bound == pytest.approx(expected)
    assert ki.certify(short).bound == pytest.approx(of_short)
    # In the other norm, beside a NAISConv2D.
    mixed = keras.Model(inputs, ki.NAISConv2D(3, max_unroll=1, name="nais")(model.output))
    report = ki.certify(mixed)
    scale = 1 / np.sqrt(1 + 1e-3)
    c = [
        np.prod(
            [
                np.linalg.norm(conv_matrix(factor * weight.numpy()[t], 5, 4), np.inf)
                for factor, weight in ((scale**2, stage.kernel1), (1, stage.kernel2))
            ]
        )
        for t in range(3)
    ]
    expected = 1 + c[2] * (1 + c[1] * (1 + c[0]))
    if skip_from == "previous":
        expected = np.prod([1 + v for v in c])
    assert report.norm == "infinity"
    nais = conv_block_gain(mixed.get_layer("nais"))
    assert report.bound == pytest.approx(expected * nais, rel=1e-5)


def make_small(name):
    small = {"units": 6, "max_unroll": 3}
    if name.startswith(("nais1", "nais_adaptive", "nais_fast", "resnet54")):
        small = {"blocks": 1, "filters": (3, 4)}
    elif "_w" in name:
        small = {"blocks": 1, "width": 2}
    model = ki.create_model(name, (6, 6, 2), 3, **small)
    rng = np.random.default_rng(0)
    for weight in model.non_trainable_variables:
        # Means of both signs, so that some ReLUs behind them are active.
        if "mean" in weight.name:
            weight.assign(rng.uniform(-0.5, 0.5, weight.shape))
        elif "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    model.converge_caps()
    return model


@pytest.fixture
def without_ascent(monkeypatch):
    """Leave out what takes the time."""
    monkeypatch.setattr(certification, "largest_ratio", lambda *_: 1e-9)


@pytest.mark.usefixtures("without_ascent")
@pytest.mark.parametrize("name", DISTINCT_NETS)
def test_every_named_net_has_rows_and_a_bound(name):
    check_named_net(name)


@pytest.mark.parametrize("name", ASCENDED)
def test_the_ascent_stays_below_the_bound_of_a_named_net(name):
    report = check_named_net(name)
    assert report.largest_ratio > 0.01


def check_named_net(name):
    model = make_small(name)
    probe = np.random.default_rng(1).normal(size=(2, 6, 6, 2)).astype(np.float32)
    report = ki.certify(model, probe)
    stages = [layer for layer in model.layers if isinstance(layer, ki.ResidualStage)]
    updates = [layer for layer in model.layers if isinstance(layer, ki.ResidualUpdate)]
    blocks = [layer for layer in model.layers if isinstance(layer, ki.IteratedBlock)]
    assert len(report.blocks) == sum(s.blocks for s in stages) + len(updates) + len(blocks)
    assert report.holds is (not updates and not name.startswith(("resnet_w", "icr")))
    assert report.norm == ("infinity" if name in INFINITY else "2")
    if name == "nais_adaptive":
        assert report.bound is None
        assert "threshold" in report.bound_reason
        return report
    assert report.bound_reason is None
    assert 0 < report.largest_ratio <= report.bound * (1 + 1e-4)
    return report


def test_a_loaded_net_has_the_same_report_and_is_left_as_it_was(tmp_path):
    inputs = keras.Input((5, 4, 2))
    stage = ki.ResidualStage(2, 1, "stage_input", lipschitz_cap=0.9)(inputs)
    model = ki.IterativeModel(inputs, ki.ResidualUpdate()([stage, L.Conv2D(2, 1)(stage)]))
    model.converge_caps()
    model.save(tmp_path / "model.keras")
    before = [weight.numpy() for weight in model.weights]
    report = ki.certify(model).to_dict()
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    tf.random.set_seed(7)
    assert ki.certify(keras.models.load_model(tmp_path / "model.keras")).to_dict() == report


def test_a_broken_weight_breaks_the_report():
    model = make_small("nais_mnist")
    assert ki.certify(model).holds
    block = model.get_layer("block")
    block.R.assign(block.R * 10)
    report = ki.certify(model)
    assert not report.holds
    assert report.largest_ratio <= report.bound * (1 + 1e-4)


def test_the_skip_may_be_a_sum_of_tensors():
    inputs = keras.Input((5, 4, 3))
    block = ki.ResidualBlock(3)
    report = ki.certify(keras.Model(inputs, inputs + block(inputs)))
    assert report.bound == pytest.approx(1 + report.blocks[0].bound)


def test_a_net_of_two_inputs_has_rows_only():
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], ki.ResidualUpdate()([a, ki.NAISDense(4)(b)]))
    report = ki.certify(model)
    assert len(report.blocks) == 2
    assert report.bound is report.largest_ratio is None
    assert "more than one input" in report.bound_reason
    with pytest.raises(ValueError, match="one input and one output"):
        ki.certify(model, np.zeros((1, 4)))


def test_bad_models():
    inputs = keras.Input((4,))
    for model, message in (
        (keras.Sequential([ki.NAISDense(4)]), "`model` must be built"),
        ("nais10", "must be a Keras model"),
        (keras.Model(inputs, L.Dense(4)(inputs), name="plain"), "'plain' has none"),
    ):
        with pytest.raises(ValueError, match=message):
            ki.certify(model)


@pytest.mark.parametrize(
    "probe", [np.zeros((2, 5)), np.zeros(4), np.zeros((0, 4)), np.full((1, 4), np.nan), "no"]
)
def test_bad_probes(probe):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ki.NAISDense(4)(inputs))
    with pytest.raises(ValueError, match="`probe` must be"):
        ki.certify(model, probe)
