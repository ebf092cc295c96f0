"""Depth, status, certificate and accuracy by depth of every kind of Keras model.

Each kind is built of the same layers as one functional model, and must agree with it.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.depth.traced_depth import TracedDepth

SHAPE = (6, 6, 3)


def make_layers():
    keras.utils.set_random_seed(1)
    return [
        ki.NAISConv2D(3, max_unroll=12, threshold=0.05, name="first"),
        ki.ResidualStage(3, 2, lipschitz_cap=0.9, skip_from="stage_input", name="stage"),
        ki.NAISConv2D(3, max_unroll=9, threshold=0.1, activation="tanh", name="last"),
        keras.layers.Flatten(),
        keras.layers.Dense(4, name="head"),
    ]


def chained(layers, x):
    for layer in layers:
        x = layer(x)
    return x


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        # Held in another order than that of the calls.
        self.held = {"after": layers[2:], "before": layers[:2]}

    def call(self, x, training=None):
        return chained(self.held["after"], chained(self.held["before"], x))


class Holder(keras.layers.Layer):
    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.held = layers

    def call(self, x):
        return chained(self.held, x)

    def compute_output_shape(self, shape):
        # Keras does not run `call` to find the shape.
        return (*shape[:-1], 3)


def functional(layers, **kwargs):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, chained(layers, inputs), **kwargs)


def subclassed(layers):
    model = Subclassed(layers)
    model(np.zeros((2, *SHAPE), np.float32))
    return model


def nested(layers):
    return functional([functional(layers[:2], name="inner"), *layers[2:]])


KINDS = {
    "subclassed": subclassed,
    "nested twice": lambda layers: functional(
        [
            keras.Sequential([functional(layers[:2], name="inner"), layers[2]], name="middle"),
            *layers[3:],
        ]
    ),
    "sequential in sequential": lambda layers: keras.Sequential(
        [keras.Input(SHAPE), keras.Sequential([keras.Input(SHAPE), *layers[:3]]), *layers[3:]]
    ),
    "own layer": lambda layers: functional([Holder(layers[:2]), *layers[2:]]),
}


def images(samples=7):
    x = np.random.default_rng(0).normal(size=(samples, *SHAPE))
    return (x * np.logspace(-2, 1, samples).reshape(-1, 1, 1, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def flat():
    """Return the layers, the functional model of them, and what is measured on it."""
    layers = make_layers()
    model = functional(layers)
    labels = np.arange(7) % 4
    return layers, {
        "outputs": ki.with_depth(model)(images()),
        "calls": ki.block_calls(model),
        "report": ki.certify(model, images()),
        "accuracy": ki.accuracy_by_depth(model, (images(), labels), [1, 3, 9], [1.0, 0.1, None]),
    }


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request, flat):
    return request.param, KINDS[request.param](flat[0]), flat[1]


def test_depth_and_status(kind):
    _, model, expected = kind
    found = ki.with_depth(model)(images())
    key = next(name for name in found if name not in ("depth", "status"))
    np.testing.assert_allclose(found[key], expected["outputs"]["logits"], atol=1e-5)
    for name in ("depth", "status"):
        assert found[name].dtype == tf.int32
        np.testing.assert_array_equal(found[name], expected["outputs"][name])
    assert len(np.unique(found["depth"][:, 0])) > 2
    assert ki.processing_depth(model) == 12 + 2 + 9
    predicted = ki.with_depth(model).predict(images(), batch_size=3, verbose=0)
    np.testing.assert_array_equal(predicted["depth"], found["depth"])


def test_the_key_of_the_outputs(kind):
    """Without a loss nothing shows what a subclassed model returns."""
    name, model, _ = kind
    unknown = name.startswith("subclassed")
    assert ("outputs" if unknown else "logits") in ki.with_depth(model).output
    assert TracedDepth(model).output == ("outputs" if unknown else "logits")


def test_certificate(kind):
    name, model, expected = kind
    found, report = ki.certify(model, images()), expected["report"]
    assert [_numbers(row) for row in found.blocks] == [_numbers(row) for row in report.blocks]
    assert [call.path for call in ki.block_calls(model)][-1].endswith("last")
    assert {row.name.split("[")[0] for row in found.blocks} == {
        call.path for call in ki.block_calls(model)
    }
    assert found.bound == (report.bound if "own" not in name and "subcl" not in name else None)
    assert found.largest_ratio == pytest.approx(report.largest_ratio, rel=1e-3)


def _numbers(row):
    return {**dataclasses.asdict(row), "name": None}


def test_a_bound_goes_through_nested_models():
    """All blocks of fixed depth: the bound of the flat model is a number."""
    layers = make_layers()
    for layer in (layers[0], layers[2]):
        layer.threshold = None
    inputs = keras.Input(SHAPE)
    inner = keras.Model(inputs, [chained(layers[:2], inputs), inputs], name="inner")
    outer = keras.Input(SHAPE)
    state, same = inner(outer)
    model = keras.Model(outer, chained(layers[2:], state + same))
    inputs = keras.Input(SHAPE)
    plain = keras.Model(inputs, chained(layers[2:], chained(layers[:2], inputs) + inputs))
    found, expected = ki.certify(model), ki.certify(plain)
    assert found.bound == pytest.approx(expected.bound, rel=1e-9)
    assert expected.bound > 0
    assert "subclassed" in ki.certify(subclassed(layers)).bound_reason


def test_accuracy_by_depth(kind):
    _, model, expected = kind
    found = ki.accuracy_by_depth(model, (images(), np.arange(7) % 4), [1, 3, 9], [1.0, 0.1, None])
    assert dataclasses.replace(found, name="") == dataclasses.replace(expected["accuracy"], name="")
    assert len({point.updates for point in found.by_max_unroll}) == 3


def test_set_depth_and_the_logger(kind, tmp_path):
    _, model, _ = kind
    before = [(block.max_unroll, block.threshold) for block in ki.iterated_blocks(model)]
    view, logger = TracedDepth(model), ki.DepthLogger(images(), tmp_path)
    logger.set_model(model)
    try:
        ki.set_depth(model, max_unroll=2, threshold=1e-9)
        np.testing.assert_array_equal(view(images())["depth"], [[2, 2, 2]] * 7)
        # Without a training, which would change moving statistics that all tests share.
        logger.on_train_begin()
        logger.on_epoch_end(0)
        logger.on_train_end()
    finally:
        for block, (max_unroll, threshold) in zip(ki.iterated_blocks(model), before, strict=True):
            if block.adjustable:
                block.max_unroll, block.threshold = max_unroll, threshold
    (events,) = tmp_path.iterdir()
    tags = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert {tag for tag in tags if tag.startswith("updates_by_block")} == {
        f"updates_by_block/{call.path}" for call in ki.block_calls(model)
    }
    assert tags["depth/updates"] == 6


def test_a_subclassed_model_that_its_first_step_builds(tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = ki.NAISDense(4, max_unroll=9)

        def call(self, x):
            return self.block(x)

    net, x = Net(), np.ones((8, 5), np.float32)
    net.compile("sgd", "mse")
    callbacks = [ki.UnrollSchedule({0: 2, 1: 5}), ki.DepthLogger(x, tmp_path)]
    net.fit(x, np.zeros((8, 4)), epochs=2, verbose=0, callbacks=callbacks)
    np.testing.assert_array_equal(ki.with_depth(net)(x)["depth"], np.full((8, 1), 5))


def test_paths(flat):
    layers, _ = flat
    paths = [call.path for call in ki.block_calls(nested(layers))]
    assert paths == ["inner/first", "inner/stage", "last"]
    assert [block.name for block in ki.iterated_blocks(subclassed(layers))] == [
        "last", "first", "stage",
    ]  # fmt: skip


def two_by_two():
    """Return a model of two inputs and two outputs with a block in each branch."""
    keras.utils.set_random_seed(2)
    left, right = keras.Input((4,), name="left"), keras.Input((5,), name="right")
    settings = {"max_unroll": 25, "threshold": 0.05}
    a = ki.NAISDense(4, name="a", **settings)(left)
    b = ki.NAISDense(4, name="b", **settings)(keras.layers.Dense(4)(right))
    outputs = {"sum": keras.layers.Dense(3)(a + b), "b": keras.layers.Dense(2)(b)}
    return keras.Model({"left": left, "right": right}, outputs)


def two_inputs(samples=9):
    rng = np.random.default_rng(1)
    scale = np.logspace(-1, 1, samples)[:, None]
    return {
        "left": (rng.normal(size=(samples, 4)) * scale).astype(np.float32),
        "right": rng.normal(size=(samples, 5)).astype(np.float32),
    }


def test_several_inputs_and_outputs(tmp_path):
    model, x = two_by_two(), two_inputs()
    found = ki.with_depth(model).predict(x, verbose=0)
    outputs = model.predict(x, verbose=0)
    for name in ("sum", "b"):
        np.testing.assert_allclose(found["outputs"][name], outputs[name], atol=1e-6)
    _, depth, _ = model.get_layer("a")(x["left"], return_depth=True)
    np.testing.assert_array_equal(found["depth"][:, 0], depth)
    labels = {"sum": np.argmax(outputs["sum"], 1), "b": np.argmax(outputs["b"], 1)}
    labels["b"][:3] = 1 - labels["b"][:3]
    for judged, right in ((["sum"], 9), (["b"], 6), (["sum", "b"], 6)):
        dataset = (x, {name: labels[name] for name in judged})
        assert ki.accuracy_by_depth(model, dataset).own.accuracy == right / 9
    report = ki.accuracy_by_depth(model, [(x, labels)] * 2, [1, 25])
    assert (report.samples, report.by_max_unroll[0].updates) == (18, 2)
    with pytest.raises(ValueError, match=r"`labels` must have the structure.*outputs \['sum', 'b'"):
        ki.accuracy_by_depth(model, (x, labels["b"]))
    model.compile("sgd", "mse")
    targets = {"sum": np.zeros((9, 3)), "b": np.zeros((9, 2))}
    model.fit(x, targets, verbose=0, callbacks=[ki.DepthLogger([(x, labels)], tmp_path)])
    assert ki.certify(model).bound_reason == "the net has more than one input or output"


def test_lists_of_inputs_and_outputs(tmp_path):
    """The usual form of Keras, with data in all forms that `fit` takes."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((4,), name="p"), keras.Input((4,), name="q")]
    state = ki.NAISDense(4, max_unroll=9, threshold=0.05)(keras.layers.add(inputs))
    model = keras.Model(inputs, [keras.layers.Dense(2)(state), keras.layers.Dense(3)(state)])
    p, q = np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    first, second = (np.argmax(each, axis=1) for each in model.predict([p, q], verbose=0))
    first[:10] = 1 - first[:10]
    for dataset in (
        ([p, q], [first, second]),
        ({"p": p, "q": q}, [first, second]),
        [([p, q], [first, second])],
        tf.data.Dataset.from_tensor_slices(((p, q), (first, second))).batch(7),
    ):
        assert ki.accuracy_by_depth(model, dataset, [1, 9], []).own.accuracy == 20 / 30
    expected = ki.with_depth(model).predict([p, q], verbose=0)["depth"].mean()
    logger = ki.DepthLogger({"p": np.tile(p, (17, 1)), "q": np.tile(q, (17, 1))}, tmp_path, 510)
    assert [len(batch["p"]) for batch in logger._batches] == [256, 254]
    logger.set_model(model)
    logger.on_train_begin()
    logger.on_epoch_end(0)
    logger.on_train_end()
    (events,) = tmp_path.iterdir()
    logged = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert logged["depth/updates"] == pytest.approx(expected, rel=1e-6)
    found = ki.predict_stream(model, {"p": p, "q": q}, batch_size=8)
    assert found["depth"].mean() == expected
    named = keras.Model({"q": inputs[1], "p": inputs[0]}, model.outputs)
    with pytest.raises(ValueError, match="must hold the model's inputs"):
        ki.accuracy_by_depth(named, ([q, p], [first, second]), [9], [])
    for wrong, message in (
        ((p, [first, second]), r"must hold the model's inputs \['p', 'q'\].*1 arrays"),
        (({"p": p}, [first, second]), r"must hold the model's inputs.*\['p'\]"),
        (([p, q], [first, second + 5]), "must be class numbers from 0 to 2"),
        (([p, q], [first, second + 0.5]), "must be class numbers from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            ki.accuracy_by_depth(model, wrong, [9], [])


def test_a_subclassed_model_of_several_inputs():
    inner = two_by_two()

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, inputs):
            return self.inner(inputs)["sum"]

    net, x = Net(), two_inputs()
    net(x)
    found = ki.with_depth(net)(x)
    np.testing.assert_array_equal(found["depth"], ki.with_depth(inner)(x)["depth"])
    names = [call.path.split("/")[1] for call in ki.block_calls(net)]
    assert names == [call.path for call in ki.block_calls(inner)]
