"""Chains: which blocks are found, that they compute what the model does, and what is refused."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from tests.support.plain_nets import rebuild, residual_net

# For single calls that is much quicker.
pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture
def net():
    return keras.Model(*residual_net(blocks=3))


def names(chain):
    return [block.name for block in chain.blocks]


def layers(block):
    return [call.layer.name for call in block.calls]


def states(model, chain, x):
    """Return the chain's states for some inputs, by the model itself."""
    symbolic = [chain.first_state, *(block.state for block in chain.blocks)]
    return [np.asarray(s) for s in keras.Model(model.input, symbolic)(x, training=False)]


BY_HAND = {
    "names": lambda net: [f"block{t}_add" for t in range(3)],
    "layers": lambda net: [net.get_layer(f"block{t}_add") for t in range(3)],
    "tensors": lambda net: tuple(net.get_layer(f"block{t}_add").output for t in range(3)),
    "closing layers": lambda net: r"block\d+_add",
    "all layers of a block": lambda net: r"block(\d+)_.*",
    "several groups": lambda net: r"block(\d+)_(add|conv|norm|relu)",
    "with the stem": lambda net: ["stem", *(f"block{t}_add" for t in range(3))],
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_all_ways_to_name_the_blocks_find_the_same(net, kind):
    chain = ki.chain(net, BY_HAND[kind](net), name="stage")
    assert chain.model is net
    assert chain.name == "stage"
    assert names(chain) == [f"block{t}_add" for t in range(3)]
    assert chain.first_state is net.get_layer("stem").output
    for t, block in enumerate(chain.blocks):
        assert layers(block) == [f"block{t}_{name}" for name in ("norm", "relu", "conv", "add")]
        assert block.state is net.get_layer(f"block{t}_add").output


def test_a_part_of_the_blocks(net):
    chain = ki.chain(net, ["block1_add", "block2_add"])
    assert names(chain) == ["block1_add", "block2_add"]
    assert chain.first_state is net.get_layer("block0_add").output
    assert chain.name == "block1_add-block2_add"
    assert "block1_add, block2_add" in repr(chain)


def test_a_block_of_several_layers_of_a_kind(net):
    # Every second addition: a block holds two of them.
    longer = keras.Model(*residual_net(blocks=4))
    chain = ki.chain(longer, ["block1_add", "block3_add"])
    assert [len(block.calls) for block in chain.blocks] == [8, 8]
    assert chain.first_state is longer.get_layer("stem").output


@pytest.mark.parametrize("schedule", [None, [0], [0, 2], [0, 1, 2, 2, 2], [], [2, 0, 1]], ids=str)
def test_a_schedule_runs_the_blocks_of_the_model(net, schedule):
    chain = ki.chain(net, r"block\d+_add")
    x = np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(np.float32)
    for layer in net.layers:
        layer.set_weights(
            [np.random.default_rng(1).uniform(0.5, 1, w.shape) for w in layer.weights]
        )
    start, *after = states(net, chain, x)
    got = chain(start, schedule)
    # Layer by layer.
    expected = start
    for t in [0, 1, 2] if schedule is None else schedule:
        y = expected
        for name in ("norm", "relu", "conv"):
            y = net.get_layer(f"block{t}_{name}")(y)
        expected = expected + y
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if schedule is None:
        np.testing.assert_allclose(got, after[-1], rtol=1e-5)


@pytest.mark.parametrize(
    "schedule", [[3], [0, 1, 2, 3], [-1], [0.5], "01", 2, [True], [None]], ids=str
)
def test_a_schedule_beyond_the_blocks_is_refused(net, schedule):
    chain = ki.chain(net, r"block\d+_add", name="stage")
    message = (
        r"^`schedule` must be .* from 0 to 2, since 'stage' has 3 blocks\. Received: schedule="
    )
    with pytest.raises(ValueError, match=message):
        chain(np.zeros((1, 4, 3, 4), np.float32), schedule)


def test_weights_are_those_of_the_model(net):
    chain = ki.chain(net, r"block\d+_add")
    x = np.ones((2, 4, 3, 4), np.float32)
    before = np.asarray(chain(x))
    net.get_layer("block2_conv").kernel.assign(2 * net.get_layer("block2_conv").kernel)
    assert np.abs(chain(x) - before).max() > 1e-3
    assert len(net.weights) == 2 + 3 * 6 + 2


def test_blocks_of_operations_without_layers():
    inputs = state = keras.Input((6,))
    found = []
    for _ in range(3):
        state = state + keras.ops.tanh(keras.layers.Dense(6)(state))
        found.append(state)
    net = keras.Model(inputs, keras.layers.Dense(2)(state))
    chain = ki.chain(net, found)
    assert chain.first_state is net.input
    assert [len(block.calls) for block in chain.blocks] == [3, 3, 3]
    by_name = ki.chain(net, r"add(_\d+)?")
    assert [block.state for block in by_name.blocks] == [block.state for block in chain.blocks]


def test_one_layer_that_the_model_calls_again_and_again():
    inputs = keras.Input((3, 2, 2))
    block = ki.ResidualBlock(2, name="block")
    state = first = keras.layers.Conv2D(2, 1)(inputs)
    for _ in range(4):
        state = block(state)
    net = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(state))
    chain = ki.chain(net, "block")
    assert names(chain) == ["block"] * 4
    assert chain.first_state is first
    x = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(chain(x, [0, 1, 2]), block(block(block(x))), rtol=1e-5)
    with pytest.raises(ValueError, match=r"`blocks` names 'block', which the model calls 4 times"):
        ki.chain(net, ["block", "block"])


def test_blocks_that_are_models():
    def block():
        inputs = keras.Input((4,))
        return keras.Model(inputs, inputs + keras.layers.Dense(4)(inputs))

    inputs = keras.Input((4,))
    blocks = [block() for _ in range(3)]
    state = keras.layers.Dense(4)(inputs)
    for each in blocks:
        state = each(state)
    net = keras.Model(inputs, keras.layers.Dense(2)(state))
    chain = ki.chain(net, blocks)
    assert len(chain.blocks) == 3
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(chain(x, [0, 2]), blocks[2](blocks[0](x)), rtol=1e-5)
    kernels, biases = chain.weight_groups()
    assert [v is each.weights[0] for v, each in zip(kernels, blocks, strict=True)] == [True] * 3
    assert [v is each.weights[1] for v, each in zip(biases, blocks, strict=True)] == [True] * 3


def test_blocks_that_also_read_the_first_state():
    inputs = keras.Input((3, 2, 4))
    stage = ki.ResidualStage(4, 4, skip_from="stage_input", name="stage")
    state = keras.layers.Conv2D(4, 1, name="stem")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(stage(state)))
    net = rebuild(model)
    chain = ki.chain(net, r"stage_add\d")
    assert len(chain.blocks) == 4
    x = np.random.default_rng(0).normal(size=(5, 3, 2, 4)).astype(np.float32)
    for schedule in (None, [0, 1], [0, 2, 3], [0, 1, 2, 3, 3, 3]):
        np.testing.assert_allclose(chain(x, schedule), stage(x, schedule=schedule), atol=1e-5)


def test_a_first_block_that_changes_the_shape_gives_the_first_state():
    net = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    for part, count in ((2, 3), (4, 6)):
        for pattern in (rf"conv{part}_block\d+_out", rf"conv{part}_block(\d+)_.*"):
            chain = ki.chain(net, pattern)
            assert names(chain) == [f"conv{part}_block{t}_out" for t in range(2, count + 1)]
            assert chain.first_state is net.get_layer(f"conv{part}_block1_out").output
            assert all(len(block.calls) == 10 for block in chain.blocks)
    # A chain of the pre-activations begins one layer earlier.
    chain = ki.chain(net, r"conv4_block\d_add")
    assert chain.first_state is net.get_layer("conv4_block1_add").output


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("conv", r"`blocks` must match names of layers.*Its last layers are .*head.*'conv'"),
        (
            "block(",
            r"`blocks` must be a regular expression: missing \).*Received: blocks='block\('",
        ),
        ("block0_add", r"at least two blocks.*names \['block0_add'\]"),
        ([], r"at least two blocks"),
        (3, r"`blocks` must be a regular expression on names of layers, or a list.*blocks=3"),
        (["block0_add", "blok1_add"], r"Did you mean 'block1_add'\? Received: blocks='blok1_add'"),
        (["block0_add", None], r"`blocks` must hold names of layers, layers or sym.*None"),
        (["block0_add", "pool"], r"one shape.*after 'block0_add', \(None, 4\) after 'pool'"),
        (["block1_add", "block0_add"], r"All paths to 'block0_add', which closes a block"),
        (["block0_add", "block0_add"], r"All paths to 'block0_add'"),
        (["block0_conv", "block1_conv"], r"All paths to 'block1_conv'"),
    ],
)
def test_what_is_no_chain(net, blocks, message):
    with pytest.raises(ValueError, match=message):
        ki.chain(net, blocks)


def test_a_path_around_a_state():
    inputs, states = keras.Input((4,)), []
    state = inputs
    for _ in range(3):
        state = keras.layers.Dense(4)(state)
        states.append(state)
    # Denser than a residual net: the third block reads the first state but one.
    state = keras.layers.Add(name="last")([keras.layers.Dense(4)(state), states[1]])
    net = keras.Model(inputs, state)
    with pytest.raises(ValueError, match="All paths to 'last', which closes a block, must lead"):
        ki.chain(net, [*states, state])


def test_models_and_layers_of_others(net):
    other = keras.Model(*residual_net(blocks=2))
    with pytest.raises(ValueError, match="symbolic tensors of the model"):
        ki.chain(net, [other.get_layer("block0_add"), other.get_layer("block1_add")])
    with pytest.raises(ValueError, match="symbolic tensors of the model"):
        ki.chain(net, [layer.output for layer in other.layers[-4:]])
    with pytest.raises(ValueError, match="`model` must be a functional Keras model"):
        ki.chain("resnet", r"block\d+_add")
    inputs = keras.Input((4, 3, 3))
    outer = keras.Model(inputs, net(inputs))
    with pytest.raises(ValueError, match=rf"the layers inside of the nested \['{net.name}'\] are"):
        ki.chain(outer, r"block\d+_add")


def test_states_with_a_mask_are_refused():
    inputs, states = keras.Input((6,), dtype="int32"), []
    state = keras.layers.Embedding(10, 8, mask_zero=True)(inputs)
    for _ in range(2):
        state = keras.layers.Add()([state, keras.layers.Dense(8)(state)])
        states.append(state)
    with pytest.raises(ValueError, match="states of a chain must not have a Keras mask"):
        ki.chain(keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(state)), states)


def test_blocks_of_a_sequential_model():
    blocks = [ki.ResidualBlock(2, name=f"block{t}") for t in range(3)]
    net = keras.Sequential([keras.Input((3, 2, 2)), keras.layers.Conv2D(2, 1), *blocks])
    chain = ki.chain(net, r"block\d")
    assert chain.model is net
    assert names(chain) == ["block0", "block1", "block2"]
    x = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(chain(x, [0, 2]), blocks[2](blocks[0](x)), rtol=1e-5)
    net.add(keras.layers.GlobalAveragePooling2D())
    chain = ki.chain(net, blocks)
    report = ki.measure_indices(chain, (x, np.argmax(net(x), axis=1)), resamples=5)
    assert report.error == 0
