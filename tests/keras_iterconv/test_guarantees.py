"""Caps and projections where something other than a training step changes weights."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.certificates import certification

CHANNELS = 4
CAP = 0.05
BLOCKS = {
    "pcr": lambda: ki.ResidualStage(CHANNELS, 2, "stage_input", lipschitz_cap=CAP, name="block"),
    "icr": lambda: ki.ResidualStage(CHANNELS, 2, lipschitz_cap=CAP, name="block"),
    "nais conv": lambda: ki.NAISConv2D(CHANNELS, max_unroll=2, tied=False, name="block"),
    "nais dense": lambda: ki.NAISDense(CHANNELS, max_unroll=2, name="block"),
}
CAUSES = (
    "use_ema",
    "ema_overwrite_frequency",
    "SwapEMAWeights",
    "restore_best_weights",
    "BackupAndRestore",
    "set_weights",
    "load_weights",
)


def make_net(kind, model_class=ki.IterativeModel):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 3, CHANNELS))
    state = keras.layers.Flatten()(inputs) if kind == "nais dense" else inputs
    state = keras.layers.Flatten()(BLOCKS[kind]()(state))
    return model_class(inputs, keras.layers.Dense(3)(state))


def make_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 3, 3, CHANNELS)).astype(np.float32), rng.integers(0, 3, 8)


def compile_net(model, **settings):
    if isinstance(model.get_layer("block"), ki.ResidualStage):
        # The weights shrink, so that a divisor that is right for them is too small for averages.
        optimizer = keras.optimizers.SGD(0.2, weight_decay=2.0, **settings)
    else:
        # Each step leads far out of the projections' sets, and averages are taken there.
        optimizer = keras.optimizers.SGD(2.0, momentum=0.9, **settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Line by line: for some steps that is quicker than tracing.
    model.compile(optimizer, loss, run_eagerly=True)


def throw(model):
    """Return the model's weights with those of its block three times as large."""
    ours = {id(weight) for weight in model.get_layer("block").trainable_variables}
    return [weight.numpy() * (3 if id(weight) in ours else 1) for weight in model.weights]


@pytest.fixture
def excess_of(conv_matrix, excess):
    """Return a function that says by how much a net passes its cap or its projections' sets."""

    def residual(stage):
        value = {weight.name: weight.numpy().astype(np.float64) for weight in stage.weights}
        worst = -np.inf
        for t in range(stage.blocks):
            s1, s2 = (
                value[f"gamma{i}"][t] / np.sqrt(value[f"variance{i}"][t] + 1e-3) for i in "12"
            )
            folded = s2 * value["kernel1"][t] * s1[:, np.newaxis]
            bound = np.prod(
                [np.linalg.norm(conv_matrix(k, 3, 3), 2) for k in (folded, value["kernel2"][t])]
            )
            worst = max(worst, bound / value["divisor"][t] / CAP - 1)
        return worst

    def measure(model):
        block = model.get_layer("block")
        return residual(block) if isinstance(block, ki.ResidualStage) else excess(block)

    return measure


class ThrowWeights(keras.callbacks.Callback):
    """Replaces the weights by others before each validation and at the end of each epoch."""

    def __init__(self, file=None):
        super().__init__()
        self.file = file

    def on_test_begin(self, logs=None):
        if self.file is None:
            self.model.set_weights(throw(self.model))
        else:
            self.model.load_weights(self.file)

    def on_epoch_end(self, epoch, logs=None):
        self.on_test_begin()


class Look(keras.callbacks.Callback):
    """Keeps the excess at the start of training, in each validation and at the end."""

    def __init__(self, excess_of):
        super().__init__()
        self.excess_of = excess_of
        self.seen = []

    def look(self, *args, **kwargs):
        self.seen.append(self.excess_of(self.model))

    on_test_batch_begin = look

    def on_train_batch_begin(self, batch, logs=None):
        # Later steps may begin with what the one before has left: they cap and project again.
        if not self.seen:
            self.look()


def write_thrown_weights(kind, file):
    """Write weights that hold nothing with a plain Keras model, which restores nothing."""
    plain = make_net(kind, keras.Model)
    compile_net(plain)  # The file holds the optimizer's variables too.
    plain.optimizer.build(plain.trainable_variables)
    plain.set_weights(throw(plain))
    plain.save_weights(file)


def callbacks_for(cause, kind, folder):
    if cause in ("SwapEMAWeights", "restore_best_weights"):
        found = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
        if cause == "restore_best_weights":
            found += [keras.callbacks.EarlyStopping("loss", restore_best_weights=True)]
        return found
    if cause == "BackupAndRestore":
        (folder / "backup").mkdir()
        write_thrown_weights(kind, folder / "backup/latest.weights.h5")
        return [keras.callbacks.BackupAndRestore(folder / "backup")]
    if cause == "set_weights":
        return [ThrowWeights()]
    if cause == "load_weights":
        write_thrown_weights(kind, folder / "thrown.weights.h5")
        return [ThrowWeights(folder / "thrown.weights.h5")]
    return []


# Rounding of float32 sums; a cap is converged to a part in ten thousand, from above.
SLACK = 3e-6


# A cap is restored in one way, whatever its skip connection.
CASES = [
    (cause, kind)
    for cause in CAUSES
    for kind in BLOCKS
    if kind != "icr" or cause in ("use_ema", "load_weights")
]


@pytest.mark.parametrize(("cause", "kind"), CASES)
def test_guarantees_hold_in_validation_after_fit_and_in_files(
    cause, kind, tmp_path, excess_of, monkeypatch
):
    # It takes longer than all else, and is no row of a certificate.
    monkeypatch.setattr(certification, "largest_ratio", lambda *args, **kwargs: 0.0)
    model = make_net(kind)
    settings = {"ema_overwrite_frequency": 1} if cause == "ema_overwrite_frequency" else {}
    compile_net(
        model, use_ema="ema" in cause.lower() or "best" in cause, ema_momentum=0.7, **settings
    )
    x, y = make_data()
    look = Look(excess_of)
    files = [tmp_path / f"{epoch}.{kind}" for epoch in (1, 2) for kind in ("keras", "weights.h5")]
    model.fit(
        x, y, batch_size=4, epochs=2, validation_data=(x, y), verbose=0,
        callbacks=[
            *callbacks_for(cause, kind, tmp_path),
            look,
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "{epoch}.weights.h5", save_weights_only=True
            ),
        ],
    )  # fmt: skip
    assert excess_of(model) < SLACK, "after fit"
    assert len(look.seen) == 1 + 2 * 2
    assert max(look.seen) < SLACK, "at the start or in a validation"
    for file in files:
        if file.suffix == ".keras":
            loaded = keras.models.load_model(file, compile=False)
        else:
            loaded = make_net(kind)
            loaded.load_weights(file)
        assert excess_of(loaded) < SLACK, file.name
    rows = ki.certify(model).blocks
    # z + f(z) has no guarantee, but a cap.
    assert all(row.cap_holds if kind == "icr" else row.holds for row in rows)


def fit(model, epochs=1, **kwargs):
    x, y = make_data()
    model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, **kwargs)


def assert_equal_weights(model, weights):
    for weight, expected in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, expected, weight.path)


@pytest.mark.parametrize("look", ["evaluate", "predict"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_evaluation_restores_what_an_assignment_broke(kind, look, excess_of):
    model = make_net(kind)
    compile_net(model)
    model.set_weights(throw(model))
    assert excess_of(model) > 0.1
    x, y = make_data()
    getattr(model, look)(x, **({"y": y} if look == "evaluate" else {}), verbose=0)
    assert excess_of(model) < SLACK


WRITERS = {
    "save": lambda model, path: model.save(path / "m.keras"),
    "HDF5": lambda model, path: model.save(path / "m.h5"),
    "save_model": lambda model, path: keras.saving.save_model(model, path / "m.keras"),
    "save_weights": lambda model, path: model.save_weights(path / "m.weights.h5"),
    "export": lambda model, path: model.export(path / "m", verbose=False),
    "get_state_tree": lambda model, path: (compile_net(model), model.get_state_tree()),
    "within another model": lambda model, path: keras.Sequential(
        [keras.Input(model.input_shape[1:]), model]
    ).save(path / "m.keras"),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", ["pcr", "nais conv"])
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_restores_first(writer, kind, tmp_path, excess_of):
    model = make_net(kind)
    model.set_weights(throw(model))
    WRITERS[writer](model, tmp_path)
    assert excess_of(model) < SLACK
    if (tmp_path / "m.keras").exists():
        loaded = keras.models.load_model(tmp_path / "m.keras", compile=False)
        loaded = loaded.layers[-1] if writer == "within another model" else loaded
        assert excess_of(loaded) < SLACK


@pytest.mark.parametrize("kind", BLOCKS)
def test_saving_within_an_epoch_leaves_training_as_it_is(kind, tmp_path):
    plain, saved = make_net(kind), make_net(kind)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", save_freq=1)
    for model, callbacks in ((plain, []), (saved, [checkpoint])):
        compile_net(model)
        fit(model, epochs=2, callbacks=callbacks)
    assert_equal_weights(saved, plain.get_weights())


@pytest.mark.parametrize("layer", ["conv", "dense"])
@pytest.mark.parametrize("size", [3, 40])
def test_projected_weights_stay_to_the_bit(layer, size):
    block = ki.NAISDense(size) if layer == "dense" else ki.NAISConv2D(size)
    block.build((None, size) if layer == "dense" else (None, 4, 4, size))
    rng = np.random.default_rng(0)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(5):
        weights = block.trainable_variables
        optimizer.apply([rng.normal(size=w.shape).astype(np.float32) for w in weights], weights)
        before = block.get_weights()
        block.restore_guarantee()
        assert_equal_weights(block, before)


@pytest.mark.parametrize("layer_class", [ki.ResidualBlock, ki.ResidualStage])
def test_without_a_cap_there_is_nothing_to_restore(layer_class):
    layer = layer_class(CHANNELS, **({} if layer_class is ki.ResidualBlock else {"blocks": 2}))
    layer.build((None, 3, 3, CHANNELS))
    before = layer.get_weights()
    layer.restore_guarantee()
    assert_equal_weights(layer, before)


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_has_not_changed_costs_no_projection_and_no_norm(kind, tmp_path, monkeypatch):
    model = make_net(kind)
    compile_net(model)
    fit(model)

    def refuse(layer):
        raise AssertionError("done again")

    monkeypatch.setattr(type(model.get_layer("block")), "_restore_guarantee", refuse)
    model.save(tmp_path / "m.keras")
    model.evaluate(*make_data(), verbose=0)
    model.set_weights(throw(model))
    with pytest.raises(AssertionError, match="done again"):
        model.save(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_file_costs_one_checksum(name, tmp_path, monkeypatch):
    model, restored = make_net("nais dense"), []
    monkeypatch.setattr(ki.NAISDense, "restore_guarantee", lambda layer: restored.append(layer))
    model.save(tmp_path / name)
    assert restored == [model.get_layer("block")]


@pytest.mark.parametrize("kind", BLOCKS)
def test_weights_that_are_swapped_out_come_back(kind, excess_of):
    model = make_net(kind)
    compile_net(model, use_ema=True, ema_momentum=0.7)
    model.train_on_batch(*make_data())
    model.train_on_batch(*make_data())
    before = [weight.numpy() for weight in model.trainable_variables]
    model.evaluate(*make_data(), verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])
    for weight, old in zip(model.trainable_variables, before, strict=True):
        # Keras swaps by sums and differences.
        np.testing.assert_allclose(weight, old, rtol=1e-5, atol=1e-5)
    # What was swapped in, and goes on as the average, holds too.
    if kind.startswith("nais"):
        averages = model.optimizer._model_variables_moving_average
        for weight, average in zip(model.trainable_variables, averages, strict=True):
            weight.assign(average)
        assert excess_of(model) < SLACK


@pytest.mark.parametrize("kind", ["pcr", "icr"])
def test_saving_a_fresh_net_leaves_its_coarser_bound(kind, tmp_path, excess_of):
    model = make_net(kind)
    before = model.get_weights()
    assert excess_of(model) < -0.1
    model.save(tmp_path / "m.keras")
    assert_equal_weights(model, before)


def test_a_plain_model_restores_nothing(tmp_path, excess_of):
    write_thrown_weights("nais conv", tmp_path / "m.weights.h5")
    plain = make_net("nais conv", keras.Model)
    plain.load_weights(tmp_path / "m.weights.h5")
    assert excess_of(plain) > 0.1
