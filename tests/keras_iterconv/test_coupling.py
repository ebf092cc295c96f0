"""Gradient coupling against plain loops: what is coupled, how much, and in which kinds of step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.comparisons import assert_same_weights
from tests.support.coupled_nets import (
    IMAGE,
    LOSS,
    make_data,
    make_model,
    sgd,
    variables_and_gradients,
)


def train(model, optimizer, steps=4, batch=8, seed=0, run_eagerly=True, **kwargs):
    """Train, line by line unless said otherwise: for some steps that is quicker than tracing."""
    x, y = make_data(batch * steps, seed)
    model.compile(optimizer, LOSS(from_logits=True), run_eagerly=run_eagerly, **kwargs)
    history = model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
    return history.history["loss"][0]


def reference(gradients, strength, kernel="uniform", members=None):
    """Eq. 1 and 2 as they stand, one pair of blocks after the other, in float64."""
    gradients = np.asarray(gradients, np.float64)
    blocks = len(gradients)
    chosen = list(range(blocks))[slice(None) if members is None else members]
    coupled = gradients.copy()
    for t in chosen:
        total, mixed = 0.0, 0.0
        for s in chosen:
            weight = 1.0 if kernel == "uniform" else 1 - abs(t - s) / blocks
            total += weight
            mixed = mixed + weight * gradients[s]
        coupled[t] = (1 - strength) * gradients[t] + strength * mixed / total
    return coupled


def stage_and_gradients(blocks=5, seed=0):
    stage = ki.ResidualStage(2, blocks)
    stage.build((None, *IMAGE))
    rng = np.random.default_rng(seed)
    variables = stage.trainable_variables
    return variables, [rng.normal(size=v.shape).astype(np.float32) for v in variables]


MEMBERS = [None, slice(-3, None), slice(2, None), slice(1, 4), slice(None, None, 2), slice(3, 4)]


@pytest.mark.parametrize("strength", [0, 0.3, 0.9, 1])
@pytest.mark.parametrize("kernel", ["uniform", "triangular"])
@pytest.mark.parametrize("members", MEMBERS, ids=str)
def test_gradients_are_coupled_as_the_equations_say(strength, kernel, members):
    coupling = ki.GradientCoupling(strength, kernel, members)
    variables, gradients = stage_and_gradients()
    got = coupling([tf.constant(g) for g in gradients], variables)
    assert len(got) == len(variables) == 6
    for after, before in zip(got, gradients, strict=True):
        np.testing.assert_allclose(after, reference(before, strength, kernel, members), atol=1e-6)


@pytest.mark.parametrize("strength", [0, 0.3, 1])
@pytest.mark.parametrize("kernel", ["uniform", "triangular"])
@pytest.mark.parametrize("members", MEMBERS[:3], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_named_groups_are_coupled_as_the_equations_say(strength, kernel, members, dtype):
    variables, gradients = variables_and_gradients(7, dtype=dtype)
    # In an order of their own, and with variables between them that are in no group.
    groups = [[6, 0, 2], [1, 5, 4]]
    coupling = ki.GradientCoupling(
        strength, kernel, members, [[variables[i] for i in group] for group in groups]
    )
    got = coupling(gradients, variables)
    np.testing.assert_array_equal(got[3], gradients[3])
    for group in groups:
        expected = reference([gradients[i] for i in group], strength, kernel, members)
        tolerance = 1e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose([got[i] for i in group], expected, atol=tolerance)
        assert all(got[i].dtype == dtype for i in group)


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9, 1])
def test_the_mean_stays_and_deviations_from_it_shrink(strength):
    variables, gradients = stage_and_gradients()
    got = ki.GradientCoupling(strength)([tf.constant(g) for g in gradients], variables)
    for after, before in zip(got, gradients, strict=True):
        mean = before.mean(axis=0)
        np.testing.assert_allclose(np.mean(after, axis=0), mean, atol=1e-6)
        np.testing.assert_allclose(after - mean, (1 - strength) * (before - mean), atol=1e-6)


@pytest.mark.parametrize("members", MEMBERS, ids=str)
@pytest.mark.parametrize("kernel", ["uniform", "triangular"])
def test_the_matrix_maps_equal_gradients_to_themselves(kernel, members):
    matrix = ki.GradientCoupling(0.7, kernel, members).matrix(6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(matrix @ np.eye(6), reference(np.eye(6), 0.7, kernel, members))


def test_arguments_are_left_as_they_are():
    variables, gradients = stage_and_gradients()
    given = [tf.constant(g) for g in gradients]
    kept = list(given)
    ki.GradientCoupling(0.5)(given, variables)
    assert all(a is b for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: sgd(weight_decay=0.01, clipnorm=0.5),
        lambda: keras.optimizers.Adam(0.01, weight_decay=0.01),
    ],
    ids=["sgd", "adam"],
)
def test_strength_zero_is_plain_training_bit_for_bit(optimizer):
    ours, plain = make_model(), make_model(keras.Model)
    plain.set_weights(ours.get_weights())
    ours_loss = train(ours, optimizer(), run_eagerly=False, coupling=0)
    assert ours_loss == train(plain, optimizer(), run_eagerly=False)
    for a, b in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "optimizer",
    [lambda: sgd(weight_decay=0.01), lambda: keras.optimizers.Adam(0.01, weight_decay=0.01)],
    ids=["sgd", "adam"],
)
def test_strength_one_keeps_blocks_equal_that_start_equal(optimizer):
    model = make_model(shared=True)
    before = model.get_weights()
    train(model, optimizer(), steps=50, run_eagerly=False, coupling=1.0)
    for name in ("first", "second"):
        stage = model.get_layer(name)
        for variable in stage.trainable_variables:
            assert np.ptp(variable, axis=0).max() <= 1e-6, variable.path
        # Statistics are the blocks' own.
        for variable in (stage.mean1, stage.variance1, stage.mean2, stage.variance2):
            assert np.ptp(variable, axis=0).max() > 1e-3
    assert max(np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)) > 0.1


def test_only_stages_are_coupled_each_by_itself():
    changes = []
    start = make_model().get_weights()
    for coupling in (None, 0.8):
        model = make_model()
        model.set_weights(start)
        train(model, sgd(momentum=0.0), steps=1, coupling=coupling)
        names = [v.path for v in model.variables]
        changes.append(
            {n: a - b for n, a, b in zip(names, model.get_weights(), start, strict=True)}
        )
    apart, coupled = changes
    coupled_names = [
        f"{stage}/{name}{number}"
        for stage in ("first", "second")
        for name in ("kernel", "gamma", "beta")
        for number in (1, 2)
    ]
    assert set(coupled_names) < set(apart)
    for name, change in apart.items():
        expected = reference(change, 0.8) if name in coupled_names else change
        np.testing.assert_allclose(coupled[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)
        if name in coupled_names:
            # Coupling them or not is no rounding.
            assert np.abs(change - expected).max() > 1e-4, name


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_untied_nais_blocks_are_coupled_and_tied_ones_are_not(kind, make_block, make_inputs):
    untied, tied = make_block(kind, tied=False), make_block(kind)
    for block in (untied, tied):
        block(make_inputs(kind))
    variables = untied.trainable_variables + tied.trainable_variables
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype(np.float32) for v in variables]
    got = ki.GradientCoupling(0.6)([tf.constant(g) for g in gradients], variables)
    half = len(untied.trainable_variables)
    for i, (after, before) in enumerate(zip(got, gradients, strict=True)):
        expected = reference(before, 0.6) if i < half else before
        np.testing.assert_allclose(after, expected, atol=1e-6)


def test_raw_gradients_are_coupled_before_clipping_and_momentum():
    model = make_model()
    x, y = make_data(8)
    with tf.GradientTape() as tape:
        loss = LOSS(from_logits=True)(y, model(x, training=True))
    variables = model.trainable_variables
    gradients = [g.numpy() for g in tape.gradient(loss, variables)]
    start = [v.numpy() for v in variables]
    stages = [v.path.startswith(("first", "second")) for v in variables]
    coupled = [reference(g, 0.7) if s else g for g, s in zip(gradients, stages, strict=True)]
    train(model, sgd(momentum=0.0, clipvalue=1e-3), steps=1, coupling=0.7)
    for variable, old, gradient in zip(variables, start, coupled, strict=True):
        expected = old - 0.1 * np.clip(gradient, -1e-3, 1e-3)
        np.testing.assert_allclose(variable, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", ["tensorflow", "keras", "path", "mixed"])
def test_named_groups_in_a_loop_of_one_s_own(kind, traced):
    rng = np.random.default_rng(0)
    make = tf.Variable if kind == "tensorflow" else keras.Variable
    values = [rng.normal(size=(4, 4)).astype(np.float32) for _ in range(3)]
    variables = [make(value, name=f"block{i}") for i, value in enumerate(values)]
    group = [v.path if kind == "path" else v for v in variables[:2]]
    if kind == "mixed":
        group[1] = variables[1].path
    coupling = ki.GradientCoupling(0.5, groups=[group])
    x = rng.normal(size=(6, 4)).astype(np.float32)

    def gradients():
        with tf.GradientTape() as tape:
            state = tf.constant(x)
            for variable in variables:
                state = state + tf.tanh(tf.matmul(state, tf.convert_to_tensor(variable)))
            loss = tf.reduce_mean(state**2)
        raw = tape.gradient(loss, variables)
        return raw, coupling(raw, variables)

    raw, coupled = (tf.function(gradients) if traced else gradients)()
    expected = [*reference(raw[:2], 0.5), raw[2]]
    for got, wanted in zip(coupled, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_sparse_gradients_of_embeddings_are_coupled(traced):
    tables = [tf.Variable(np.random.default_rng(i).normal(size=(6, 2))) for i in range(2)]
    coupling = ki.GradientCoupling(0.4, groups=[tables])

    def gradients():
        with tf.GradientTape() as tape:
            rows = [tf.gather(t, picks) for t, picks in zip(tables, ([1, 3], [3, 3]), strict=True)]
            loss = tf.reduce_sum(rows[0] ** 2) + 3 * tf.reduce_sum(rows[1])
        raw = tape.gradient(loss, tables)
        assert all(isinstance(g, tf.IndexedSlices) for g in raw)
        return coupling(raw, tables)

    dense = np.zeros((2, 6, 2))
    dense[0, [1, 3]] = 2 * tables[0].numpy()[[1, 3]]
    dense[1, 3] = 6
    got = (tf.function(gradients) if traced else gradients)()
    np.testing.assert_allclose(got, reference(dense, 0.4), atol=1e-12)


def test_no_gradient_is_zero_for_the_others_of_its_group():
    variables, gradients = variables_and_gradients(6)
    gradients[1] = gradients[3] = gradients[4] = gradients[5] = None
    groups = [variables[:3], variables[3:5]]
    got = ki.GradientCoupling(0.5, groups=groups)(gradients, variables)
    expected = reference([gradients[0], np.zeros((3, 2)), gradients[2]], 0.5)
    np.testing.assert_allclose(got[:3], expected, atol=1e-6)
    assert got[3:] == [None, None, None]


def test_a_stack_without_a_gradient_keeps_none():
    variables, gradients = stage_and_gradients()
    gradients[0] = None
    got = ki.GradientCoupling(0.5)(gradients, variables)
    assert got[0] is None
    np.testing.assert_allclose(got[1], reference(gradients[1], 0.5), atol=1e-6)


@pytest.mark.parametrize(("strength", "members"), [(0.5, slice(1, None)), (0, None)])
def test_uncoupled_variables_keep_none(strength, members):
    # A zero in its place would let momentum and weight decay move the variable.
    variables, gradients = variables_and_gradients(3)
    gradients[0] = None
    got = ki.GradientCoupling(strength, members=members, groups=[variables])(gradients, variables)
    assert got[0] is None


COUPLINGS = {
    "kernel and members": lambda model: ki.GradientCoupling(0.7, "triangular", slice(-2, None)),
    "groups": lambda model: ki.GradientCoupling(
        0.7, groups=[[model.get_layer("transition").bias, model.get_layer("extra").bias]]
    ),
}


@pytest.mark.parametrize("kind", COUPLINGS)
def test_a_saved_model_goes_on_training_with_its_coupling(kind, tmp_path):
    model = make_model()
    state = keras.layers.Conv2D(2, 2, name="extra")(model.get_layer("transition").output)
    rest = keras.layers.Dense(3, name="other")(keras.layers.Flatten()(state))
    model = ki.IterativeModel(model.input, keras.layers.Add()([model.output, rest]))
    train(model, sgd(), coupling=COUPLINGS[kind](model))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.coupling, ki.GradientCoupling)
    assert loaded.coupling.get_config() == model.coupling.get_config()
    assert loaded.coupling.strength == 0.7
    assert loaded.to_json() == model.to_json()
    x, y = make_data(32, seed=1)
    uncoupled = keras.models.load_model(tmp_path / "model.keras", compile=False)
    uncoupled.compile(sgd(), LOSS(from_logits=True), run_eagerly=True)
    for twin in (model, loaded, uncoupled):
        twin.run_eagerly = True
        twin.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert_same_weights(loaded, model, 1e-6)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(uncoupled.get_weights(), model.get_weights(), strict=True)
    )


@pytest.mark.parametrize("members", MEMBERS, ids=str)
def test_a_coupling_comes_back_from_its_configuration(members):
    coupling = ki.GradientCoupling(np.float32(0.5), "triangular", members, [["a/b", "c/d"]])
    config = keras.saving.serialize_keras_object(coupling)
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.get_config() == coupling.get_config()
    assert twin.members == members
    assert twin.groups == [["a/b", "c/d"]]
    np.testing.assert_array_equal(twin.matrix(6), coupling.matrix(6))


def test_two_replicas_couple_as_one():
    coupling = 0.8
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    assert strategy.num_replicas_in_sync == 2
    one = make_model(frozen_norm=True)
    plain = make_model(frozen_norm=True)
    plain.set_weights(one.get_weights())
    with strategy.scope():
        many = make_model(frozen_norm=True)
        many.set_weights(one.get_weights())
        many_loss = train(many, sgd(), run_eagerly=False, coupling=coupling)
    assert train(one, sgd(), coupling=coupling) == pytest.approx(many_loss, rel=1e-5)
    assert_same_weights(one, many, 1e-5)
    train(plain, sgd())
    assert np.abs(plain.get_layer("first").kernel1 - one.get_layer("first").kernel1).max() > 1e-3


def test_accumulated_halves_couple_as_a_whole_batch():
    whole, halves = make_model(frozen_norm=True), make_model(frozen_norm=True)
    halves.set_weights(whole.get_weights())
    before = whole.get_weights()
    train(whole, sgd(), steps=3, batch=8, coupling=0.8)
    train(halves, sgd(gradient_accumulation_steps=2), steps=6, batch=4, coupling=0.8)
    assert_same_weights(whole, halves, 2e-6)
    assert max(np.abs(a - b).max() for a, b in zip(before, whole.get_weights(), strict=True)) > 0.01


def test_a_loss_scale_goes_through_the_coupling():
    exact = make_model(frozen_norm=True)
    start = exact.get_weights()
    train(exact, sgd(momentum=0.0), steps=1, coupling=0.8)
    keras.config.set_dtype_policy("mixed_float16")
    mixed = make_model(frozen_norm=True)
    mixed.set_weights(start)
    train(mixed, sgd(momentum=0.0), steps=1, coupling=0.8)
    assert isinstance(mixed.optimizer, keras.optimizers.LossScaleOptimizer)
    for a, b, old in zip(mixed.get_weights(), exact.get_weights(), start, strict=True):
        np.testing.assert_allclose(a - old, b - old, rtol=0, atol=0.03 * np.abs(b - old).max())


def test_a_step_that_overflows_is_skipped_for_all_blocks():
    keras.config.set_dtype_policy("mixed_float16")
    model = make_model(frozen_norm=True)
    start = [v.numpy() for v in model.trainable_variables]
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**40)
    train(model, optimizer, steps=1, coupling=1)
    for variable, old in zip(model.trainable_variables, start, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert float(optimizer.dynamic_scale) < 2.0**40
