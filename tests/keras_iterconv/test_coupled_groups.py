"""Groups that a chain or a pattern gives: which weights are coupled, against a NumPy blend."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.plain_nets import residual_net

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
WEIGHTS = ("norm/gamma", "norm/beta", "conv/kernel", "conv/bias")


def data(samples=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, 4, 3, 3)).astype(np.float32), rng.integers(0, 4, samples)


def groups_by_hand(blocks):
    return [[f"block{t}_{weight}" for t in blocks] for weight in WEIGHTS]


def blend(gradients, groups, strength):
    """Return gradients by path, blended group by group in float64."""
    found = {path: np.float64(gradient) for path, gradient in gradients.items()}
    for group in groups:
        mean = sum(np.float64(gradients[path]) for path in group) / len(group)
        for path in group:
            found[path] = (1 - strength) * np.float64(gradients[path]) + strength * mean
    return found


def raw_gradients(model):
    x, y = data()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    paths = [v.path for v in model.trainable_variables]
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return {path: g.numpy() for path, g in zip(paths, gradients, strict=True)}


def check_step(model, groups, expected_groups, strength=0.7):
    """Compare one step of `fit` with plain SGD on gradients that are blended by hand."""
    gradients = raw_gradients(model)
    start = {v.path: v.numpy() for v in model.trainable_variables}
    expected = blend(gradients, expected_groups, strength)
    coupling = ki.GradientCoupling(strength, groups=groups)
    model.compile(keras.optimizers.SGD(0.1), LOSS, coupling=coupling, run_eagerly=True)
    model.fit(*data(), batch_size=8, verbose=0)
    for variable in model.trainable_variables:
        change = (start[variable.path] - variable.numpy()) / 0.1
        np.testing.assert_allclose(
            change, expected[variable.path], atol=2e-5, err_msg=variable.path
        )
    # Coupling them or not is no rounding.
    assert any(np.abs(gradients[p] - expected[p]).max() > 1e-3 for g in expected_groups for p in g)


@pytest.mark.parametrize(
    ("groups", "blocks"),
    [
        (lambda model: ki.chain(model, r"block\d_add"), range(4)),
        (lambda model: ki.chain(model, ["block1_add", "block2_add"]), [1, 2]),
        (
            lambda model: [
                ki.chain(model, ["stem", "block0_add", "block1_add"]),
                ki.chain(model, ["block2_add", "block3_add"]),
            ],
            None,
        ),
        (lambda model: r"block(\d)_.*", range(4)),
        (lambda model: r"block(\d)_(.*)", range(4)),
        (lambda model: r"block([13])_.*", [1, 3]),
    ],
    ids=["chain", "part", "two chains", "pattern", "pattern with rest", "pattern of some"],
)
def test_a_step_with_groups_is_that_of_a_blend_by_hand(groups, blocks):
    model = ki.IterativeModel(*residual_net(blocks=4))
    if blocks is None:
        expected = groups_by_hand([0, 1]) + groups_by_hand([2, 3])
    else:
        expected = groups_by_hand(blocks)
    check_step(model, groups(model), expected)


def test_a_pattern_of_some_weights():
    model = ki.IterativeModel(*residual_net(blocks=3))
    check_step(model, r"block(\d)_conv/kernel", [[f"block{t}_conv/kernel" for t in range(3)]])


def test_blocks_of_a_pattern_are_ordered_by_number():
    # Neither the order of the variables nor that of the characters.
    variables = [keras.Variable(np.zeros(2), name=f"b{t}") for t in (10, 9, 1, 2)]
    gradients = [tf.constant(np.eye(2)[i % 2] * i, tf.float32) for i in range(4)]
    coupling = ki.GradientCoupling(1.0, "triangular", groups=r"b(\d+)")
    got = coupling(gradients, variables)
    matrix = ki.GradientCoupling(1.0, "triangular").matrix(4)
    order = [2, 3, 1, 0]
    expected = matrix @ np.stack([gradients[i] for i in order])
    np.testing.assert_allclose([got[i] for i in order], expected, atol=1e-6)
    # Other names keep the order of the variables.
    named = [tf.Variable(np.zeros(2), name=f"{name}/w") for name in ("early", "mid", "late")]
    got = ki.GradientCoupling(1.0, members=slice(2), groups=r"(\w+)/w:0")(gradients[:3], named)
    np.testing.assert_allclose(got[0], (gradients[0] + gradients[1]) / 2)
    np.testing.assert_array_equal(got[2], gradients[2])


def test_weights_with_names_of_their_own_are_coupled_in_their_order():
    # As Keras names the layers inside of a block.
    names = ["block0/dense", "block0/dense_1", "block1/dense_2", "block1/dense_3"]
    variables = [tf.Variable(np.zeros((2, 2)), name=name) for name in names]
    coupling = ki.GradientCoupling(0.5, groups=r"block(\d)/.*")
    assert coupling.find_coupled(variables) == [[0, 2], [1, 3]]
    with pytest.raises(
        ValueError, match=r"matches 'block0/dense:0' of block '0' and nothing in its "
    ):
        ki.GradientCoupling(0.5, groups=r"block(\d)/(.*)").find_coupled(variables)


def test_the_blocks_of_resnet50():
    net = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    chain = ki.chain(net, r"conv4_block\d+_out")
    coupling = ki.GradientCoupling(0.5, groups=chain)
    pattern = ki.GradientCoupling(0.5, groups=r"conv4_block([2-6])_(.*)")
    variables = net.trainable_variables
    found = coupling.find_coupled(variables)
    # Three convolutions with bias and three normalisations.
    assert len(found) == 12
    for group in found:
        paths = [variables[i].path for i in group]
        assert [path[:13] for path in paths] == [f"conv4_block{t}_" for t in range(2, 7)]
        assert len({path[13:] for path in paths}) == 1
    assert sorted(found) == sorted(pattern.find_coupled(variables))
    # The first block has one convolution more.
    with pytest.raises(ValueError, match=r"matches 'conv4_block1_0_conv/kernel' of block '1' and"):
        ki.GradientCoupling(0.5, groups=r"conv4_block(\d)_(.*)").find_coupled(variables)


def shared_net(shared, widths=(4, 4, 4), norms=True):
    """Return a net whose blocks share a convolution, and may have normalisations of their own."""
    inputs = keras.Input((4, 3, 3))
    state = keras.layers.Conv2D(4, 1, name="stem")(inputs)
    for t, width in enumerate(widths):
        y = keras.layers.BatchNormalization(name=f"block{t}_norm")(state) if norms else state
        y = shared(y) if shared else keras.layers.Conv2D(width, 1, name=f"block{t}_in")(y)
        y = keras.layers.Conv2D(4, 1, name=f"block{t}_out")(y) if norms else y
        state = keras.layers.Add(name=f"block{t}_add")([state, y])
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(state))


def test_weights_that_the_blocks_share_are_left_out():
    net = shared_net(keras.layers.Conv2D(4, 1, name="shared"))
    groups = ki.GradientCoupling(0.5, groups=ki.chain(net, r"block\d_add")).groups
    expected = ["norm/gamma", "norm/beta", "out/kernel", "out/bias"]
    assert [group[0].path for group in groups] == [f"block0_{weight}" for weight in expected]
    net = shared_net(keras.layers.Conv2D(4, 1, name="shared"), norms=False)
    with pytest.raises(ValueError, match=r"nothing to couple: 'block0_add-block2_add' has no"):
        ki.GradientCoupling(0.5, groups=ki.chain(net, r"block\d_add"))


def test_blocks_that_do_not_match_are_named():
    net = shared_net(None, widths=(4, 4, 5))
    message = (
        r"^The blocks of a chain must have trainable weights of the same shapes.*block0_add: "
        r"block0_in/kernel \(1, 1, 4, 4\).*block2_add: block2_in/kernel \(1, 1, 4, 5\)"
    )
    with pytest.raises(ValueError, match=message):
        ki.GradientCoupling(0.5, groups=ki.chain(net, r"block\d_add"))
    net = shared_net(None)
    net.get_layer("block1_out").trainable = False
    with pytest.raises(ValueError, match=r"block0_add: block0_out/kernel .*, block1_add: none"):
        ki.GradientCoupling(0.5, groups=ki.chain(net, r"block\d_add"))
    with pytest.raises(ValueError, match=r"'block0_in/kernel': \(1, 1, 4, 4\).*\(1, 1, 4, 5\)"):
        ki.GradientCoupling(0.5, groups=r"block(\d)_in/kernel").find_coupled(
            shared_net(None, widths=(4, 5)).trainable_variables
        )


def test_a_frozen_block_of_a_chain_is_named_in_compile():
    model = ki.IterativeModel(*residual_net(blocks=2))
    coupling = ki.GradientCoupling(0.5, groups=ki.chain(model, r"block\d_add"))
    model.get_layer("block1_conv").trainable = False
    with pytest.raises(ValueError, match=r"^`groups` names 'block1_conv/kernel', which is frozen"):
        model.compile("sgd", LOSS, coupling=coupling)
    with pytest.raises(ValueError, match=r"matches 'block0_conv/kernel' of block '0' and nothing"):
        model.compile("sgd", LOSS, coupling=ki.GradientCoupling(0.5, groups=r"block(\d)_.*"))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (r"block(\d", r"`groups` must be a regular expression: missing \).*groups='block"),
        (r"block\d_.*", r"`groups` must be a list of lists.*whose first group is the block"),
        ([r"block(\d)_.*"], r"`groups` must be a list of lists"),
    ],
)
def test_bad_patterns(groups, message):
    with pytest.raises(ValueError, match=message):
        ki.GradientCoupling(0.5, groups=groups)


@pytest.mark.parametrize("groups", [r"stage(\d)_.*", r"block(0)_.*"])
def test_a_pattern_that_matches_less_than_two_blocks(groups):
    model = ki.IterativeModel(*residual_net(blocks=2))
    with pytest.raises(ValueError, match=r"at least two blocks.*first of these are stem/kernel"):
        model.compile("sgd", LOSS, coupling=ki.GradientCoupling(0.5, groups=groups))


@pytest.mark.parametrize("kind", ["chain", "pattern"])
def test_a_saved_model_keeps_its_groups(kind, tmp_path):
    model = ki.IterativeModel(*residual_net(blocks=3))
    groups = ki.chain(model, r"block\d_add") if kind == "chain" else r"block(\d)_(.*)"
    coupling = ki.GradientCoupling(0.5, groups=groups)
    model.compile(keras.optimizers.SGD(0.1), LOSS, coupling=coupling)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.coupling.get_config() == coupling.get_config()
    variables = model.trainable_variables
    expected = coupling.find_coupled(variables)
    assert loaded.coupling.find_coupled(loaded.trainable_variables) == expected
    assert sorted([variables[i].path for i in group] for group in expected) == sorted(
        groups_by_hand(range(3))
    )
