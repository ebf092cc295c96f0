"""What is logged of a net's depth, read back from the event files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import keras_iterconv as ki

BLOCKS = ("first", "second")


def make_net(threshold=0.03):
    """Return a compiled net whose training draws random numbers."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((5,))
    state = ki.NAISDense(6, 12, threshold, step_size=0.5, name="first")(inputs)
    state = keras.layers.Dropout(0.5)(state)
    state = ki.NAISDense(6, 7, threshold, step_size=0.5, name="second")(state)
    model = ki.IterativeModel(inputs, keras.layers.Dense(3)(state))
    model.compile(keras.optimizers.SGD(0.003), "mse")
    return model


@pytest.fixture
def images():
    x = np.random.default_rng(0).normal(size=(30, 5))
    return (x * np.logspace(1, -1, 30)[:, None]).astype(np.float32)


def fit(model, images, callbacks, **given):
    targets = np.sin(images[:, :3])
    given = {"epochs": 3, "batch_size": 10, "verbose": 0, **given}
    model.fit(images, targets, callbacks=callbacks, **given)
    return model


def read(folder):
    """Return what a folder logged: for each tag, the values by step."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {e.step: make_ndarray(e.tensor_proto).item() for e in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def measure(model, x):
    """Run the net layer by layer and return what should be logged of it."""
    scalars, total, at_limit, not_finite = {}, [], [], []
    state = x
    for layer in model.layers[1:]:
        if layer.name not in BLOCKS:
            state = layer(state)
            continue
        state, depth, status = (part.numpy() for part in layer(state, return_depth=True))
        scalars[f"updates_by_block/{layer.name}"] = depth.mean()
        scalars[f"share_at_limit_by_block/{layer.name}"] = np.mean(status == 1)
        total.append(depth)
        at_limit.append(status == 1)
        not_finite.append(status == 2)
    return {
        **scalars,
        "depth/updates": np.mean(np.sum(total, axis=0)),
        "depth/share_at_limit": np.mean(at_limit),
        "depth/share_not_finite": np.mean(not_finite),
    }


class Measured(keras.callbacks.Callback):
    """Keeps what `measure` says at the end of each epoch."""

    def __init__(self, images):
        super().__init__()
        self.images = images
        self.epochs = {}

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[epoch] = measure(self.model, self.images)


def check(logged, measured):
    assert set(logged) == set(next(iter(measured.values())))
    for tag, values in logged.items():
        expected = {epoch: scalars[tag] for epoch, scalars in measured.items()}
        assert values == pytest.approx(expected), tag


def test_each_epoch_logs_the_depth_of_its_net(images, tmp_path):
    images[3] = np.nan
    slow = Measured(images[:20])
    clean = np.delete(images, 3, axis=0)
    fit(make_net(), clean, [ki.DepthLogger(images, tmp_path, samples=20), slow])
    logged = read(tmp_path)
    check(logged, slow.epochs)
    assert len(set(logged["depth/updates"].values())) > 1
    assert logged["depth/share_not_finite"][0] == pytest.approx(1 / 20)
    assert 0 < logged["depth/share_at_limit"][0] < 1


def test_training_is_not_disturbed(images, tmp_path):
    logger = ki.DepthLogger(images, tmp_path)
    plain, logged = fit(make_net(), images, []), fit(make_net(), images, [logger])
    for a, b in zip(plain.variables, logged.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    # Neither do the random numbers that come after it move on.
    draws = []
    for callbacks in ([], [logger]):
        fit(make_net(), images, callbacks)
        draws.append((tf.random.normal([3]).numpy(), keras.random.normal([3]).numpy()))
    np.testing.assert_array_equal(*draws)


def test_the_net_is_traced_once(images, tmp_path, monkeypatch):
    traced = []
    call = ki.NAISDense.call

    def counted(self, *args, **kwargs):
        if kwargs.get("return_depth"):
            traced.append(self.name)
        return call(self, *args, **kwargs)

    model, logger = make_net(), ki.DepthLogger(images, tmp_path)
    monkeypatch.setattr(ki.NAISDense, "call", counted)
    # The last batch is then a smaller one.
    monkeypatch.setattr("keras_iterconv.depth.logger.BATCH_SIZE", 11)
    fit(model, images, [logger])
    ki.set_depth(model, max_unroll=3, threshold=0.5)
    fit(model, images, [logger])
    assert traced == list(BLOCKS)
    assert read(tmp_path)["depth/updates"][2] <= 6


def test_a_function_that_is_given_is_used(images, tmp_path):
    model, seen = make_net(), []
    view = ki.with_depth(model)

    def run(x):
        seen.append(x)
        return {name: value.numpy() for name, value in view(x, training=False).items()}

    slow = Measured(images)
    fit(model, images, [ki.DepthLogger(images, tmp_path, run=run), slow], epochs=2)
    check(read(tmp_path), slow.epochs)
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate([images, images]))


def test_a_run_that_goes_on_adds_to_its_logs(images, tmp_path):
    model, slow = make_net(), Measured(images)
    for begin, end in ((0, 2), (2, 3)):
        logger = ki.DepthLogger(images, tmp_path)
        fit(model, images, [logger, slow], initial_epoch=begin, epochs=end)
    check(read(tmp_path), slow.epochs)
    assert set(slow.epochs) == {0, 1, 2}


def test_one_logger_serves_two_trainings_and_two_nets(images, tmp_path):
    logger, slow = ki.DepthLogger(images, tmp_path), Measured(images)
    model = make_net()
    fit(model, images, [logger, slow], epochs=1)
    fit(model, images, [logger, slow], initial_epoch=1, epochs=2)
    fit(make_net(0.5), images, [logger, slow], initial_epoch=2, epochs=3)
    check(read(tmp_path), slow.epochs)


def test_frequency_and_a_tensorboard_of_keras_beside_it(images, tmp_path):
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=1000, write_graph=False)
    logger = ki.DepthLogger(images, tmp_path / "depth", frequency=2)
    fit(make_net(), images, [board, logger], epochs=5)
    assert list(read(tmp_path / "depth")["depth/updates"]) == [1, 3]


@pytest.mark.parametrize(
    "kind", ["array", "tensor", "pair", "batches", "labelled batches", "endless batches"]
)
def test_images_of_all_kinds(images, tmp_path, kind):
    labels = np.arange(30)
    dataset = {
        "array": images,
        "tensor": tf.constant(images),
        "pair": (images, labels),
        "batches": tf.data.Dataset.from_tensor_slices(images).batch(7),
        "endless batches": tf.data.Dataset.from_tensor_slices(images).batch(7).repeat(),
        "labelled batches": tf.data.Dataset.from_tensor_slices((images, labels)).batch(7),
    }[kind]
    model = make_net()
    slow = Measured(images[:16])
    fit(model, images, [ki.DepthLogger(dataset, tmp_path, samples=16), slow], epochs=1)
    check(read(tmp_path), slow.epochs)


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        (np.ones((0, 5)), {}, "`dataset` must hold at least one image"),
        ([], {}, "`dataset` must hold at least one image"),
        (3, {}, "`dataset` must be batches"),
        (np.ones((2, 5)), {"samples": 0}, "`samples` must be an integer"),
        (np.ones((2, 5)), {"frequency": 1.5}, "`frequency` must be an integer"),
        (np.ones((2, 5)), {"run": 3}, "`run` must be a function or None. Received: run=3"),
    ],
)
def test_bad_arguments(tmp_path, dataset, given, message):
    with pytest.raises(ValueError, match=message):
        ki.DepthLogger(dataset, tmp_path, **given)


def test_a_net_without_blocks_is_refused_when_training_starts(images, tmp_path):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`model` must contain at least one block"):
        fit(model, images, [ki.DepthLogger(images, tmp_path)])
