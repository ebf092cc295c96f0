"""The calls of blocks in a model: their order and paths, and those that cannot be seen."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki


def chained(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def test_a_block_that_is_called_twice():
    """One column a call, in a graph, in a nested model that is called twice, and in Python."""
    block = ki.NAISDense(4, max_unroll=20, threshold=0.02, initial_state="input", name="block")
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    state, depths = x, []
    for _ in range(2):
        state, depth, _ = block(state, return_depth=True)
        depths.append(depth)
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), block], name="inner")

    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = block

        def call(self, x):
            return self.block(self.block(x))

    twice = Twice()
    twice(x)
    for model, path in (
        (keras.Model(inputs, block(block(inputs))), "block"),
        (keras.Model(inputs, inner(inner(inputs))), "inner/block"),
        (twice, "block"),
    ):
        found = ki.with_depth(model)(x)
        np.testing.assert_array_equal(found["depth"], np.stack(depths, axis=1))
        assert [call.path for call in ki.block_calls(model)] == [path, f"{path}#2"]
        assert ki.iterated_blocks(model) == [block]
        assert ki.processing_depth(model) == 40


def test_what_cannot_be_read_is_one_line():
    class Looped(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = ki.NAISDense(3, threshold=0.1)

        def call(self, x):
            return tf.cond(tf.reduce_sum(x) > 0, lambda: self.block(x), lambda: x)

    x = np.ones((2, 3), np.float32)
    model = Looped()
    with pytest.raises(ValueError, match=r"`model` must be built.*call it on a batch"):
        ki.with_depth(model)
    model.block.build((None, 3))
    model(x)
    with pytest.raises(ValueError, match="is called inside a loop, a branch or"):
        ki.with_depth(model)(x)
    unbuilt = keras.Sequential([ki.NAISDense(3)])
    with pytest.raises(ValueError, match="`model` must be built"):
        ki.with_depth(unbuilt)
    ki.set_depth(unbuilt, max_unroll=4)
    assert ki.iterated_blocks(unbuilt)[0].max_unroll == 4

    class TwoInputs(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = ki.NAISDense(3)

        def call(self, x, y):
            return self.block(x + y)

    model = TwoInputs()
    model(x, x)
    with pytest.raises(ValueError, match=r"`model` must take its inputs as one.*\['x', 'y'\]"):
        ki.with_depth(model)


def test_calls_that_change_from_run_to_run_are_an_error():
    class Swapping(keras.Model):
        """Two blocks of one name, in an order that can change."""

        def __init__(self):
            super().__init__()
            self.blocks = [ki.NAISDense(3, max_unroll=k, name="block") for k in (2, 3)]
            self.order = [0, 1]

        def call(self, x):
            return chained([self.blocks[k] for k in self.order], x)

    x = np.ones((2, 3), np.float32)
    model = Swapping()
    model(x)
    view = ki.with_depth(model)
    np.testing.assert_array_equal(view(x)["depth"], [[2, 3]] * 2)
    for order in ([1, 0], [0, 1, 1], [0]):
        model.order = order
        with pytest.raises(ValueError, match="must call the same blocks in the same order"):
            view(x)


@pytest.mark.parametrize("hidden", ["traced before", "wrapper", "never called"])
def test_a_block_that_is_hidden_gets_no_guarantee(hidden):
    """Nothing counts its updates, so that neither depth nor certificate may leave it out."""
    keras.utils.set_random_seed(0)
    seen, unseen = ki.NAISDense(4, name="seen"), ki.NAISDense(4, name="unseen")
    run = tf.function(unseen, input_signature=[tf.TensorSpec((None, 4))])

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.seen, self.unseen = seen, unseen

        def call(self, x):
            return run(self.seen(x)) if hidden == "traced before" else self.seen(x)

    if hidden == "wrapper":
        inputs = keras.Input((5, 4))
        model = keras.Model(inputs, seen(keras.layers.TimeDistributed(unseen)(inputs)[:, 0]))
    else:
        unseen.build((None, 4))
        model = Net()
        model(np.ones((2, 4), np.float32))
    shape = (2, 5, 4) if hidden == "wrapper" else (2, 4)
    data = np.ones(shape, np.float32), np.zeros(2, int)

    def calibrate(model):
        ki.calibrate_depth(model, data, mean_updates=5, per_block=True)

    for read in (ki.block_calls, ki.with_depth, ki.processing_depth, calibrate):
        with pytest.raises(ValueError, match=r"must call all its blocks itself.*unseen'"):
            read(model)
    assert [block.threshold for block in (seen, unseen)] == [None, None]
    report = ki.certify(model)
    assert not report.holds
    assert [(row.name.split("/")[-1], row.holds) for row in report.blocks] == [
        ("seen", True),
        ("unseen", False),
    ]


def test_a_block_shared_by_two_nested_models_has_two_paths():
    block = ki.NAISDense(4, initial_state="input", name="block")
    first, second = (
        keras.Sequential([keras.Input((4,)), block], name=name) for name in ("first", "second")
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, second(first(inputs)))
    assert [call.path for call in ki.block_calls(model)] == ["first/block", "second/block"]
