"""Each architecture, small: plain Keras training, files, SavedModel, samples apart, bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.builders import DISTINCT_NETS

pytestmark = pytest.mark.graph_optimizer
OF_BLOCKS = ("nais1", "nais_adaptive", "nais_fast", "resnet54")


def make_small(name):
    """Return a small version whose normalisations do something, as after training."""
    small = {"units": 6, "max_unroll": 3}
    if name.startswith(OF_BLOCKS):
        small = {"blocks": 1, "filters": (4, 6)}
    elif name.startswith(("resnet_w", "icr_", "pcr_")):
        small = {"blocks": 2, "width": 3}
    model = ki.create_model(name, (6, 6, 2), 3, **small)
    rng = np.random.default_rng(0)
    for weight in model.non_trainable_variables:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    # Saving does it too: a file of a net whose caps are not converged is another net's.
    model.converge_caps()
    return model


@pytest.fixture(scope="module", params=DISTINCT_NETS)
def model(request):
    """Return a model that no test may change, so that Keras traces its functions once."""
    return make_small(request.param)


@pytest.fixture(scope="module")
def deep(model):
    return ki.with_depth(model)


def images(samples=4, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, 6, 6, 2)).astype(np.float32)


@pytest.mark.parametrize("name", DISTINCT_NETS)
def test_one_step_of_fit_as_a_plain_keras_model(name, excess):
    model = make_small(name)
    plain = keras.Model(model.input, model.output)
    plain.compile(
        keras.optimizers.SGD(0.5, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = images(8), np.arange(8) % 3
    moving = [v.numpy() for v in plain.non_trainable_variables]
    logits = plain(x, training=True).numpy().astype(np.float64)
    # Statistics, and the vectors that a cap goes by.
    for variable, value in zip(plain.non_trainable_variables, moving, strict=True):
        variable.assign(value)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    before = {v.path: v.numpy() for v in plain.trainable_variables}
    loss = plain.fit(x, y, batch_size=8, verbose=0).history["loss"][0]
    assert loss == pytest.approx(-log_p[np.arange(8), y].mean(), rel=1e-4)
    # The first update of an untied chain that starts at zero never uses its A.
    idle = {"A1/kernel"} if "_na" in model.name and "_sh" not in model.name else set()
    moved = {v.path for v in plain.trainable_variables if (v.numpy() != before[v.path]).any()}
    assert set(before) - moved == idle
    for block in ki.iterated_blocks(model):
        if isinstance(block, ki.IteratedBlock):
            assert excess(block) < 2e-6


def test_files_and_configurations(model, tmp_path):
    x = images()
    expected = model(x).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is ki.IterativeModel
    assert loaded.to_json() == model.to_json()
    np.testing.assert_array_equal(loaded(x), expected)

    twin = ki.IterativeModel.from_config(model.get_config())
    assert type(twin) is ki.IterativeModel
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(x), expected)


def test_saved_model(model, deep, tmp_path):
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    deep.export(tmp_path / "deep", verbose=False)
    loaded_deep = tf.saved_model.load(tmp_path / "deep")
    for x in (images(5), images(1)):
        np.testing.assert_allclose(loaded.serve(x), model(x), atol=1e-5)
        got, expected = loaded_deep.serve(x), deep(x)
        assert set(got) == {"logits", "depth", "status"}
        np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-5)
        np.testing.assert_array_equal(got["depth"], expected["depth"])
        np.testing.assert_array_equal(got["status"], expected["status"])


def test_a_sample_with_nan_is_reported_and_leaves_the_others_alone(deep):
    x = images(5)
    clean = deep.predict(x, verbose=0)
    x[1, 2, 3, 0] = np.nan
    x[3] = np.nan
    got = deep.predict(x, verbose=0)
    np.testing.assert_array_equal(got["status"][[1, 3]], 2)
    assert not np.isfinite(got["logits"][[1, 3]]).any()
    others = [0, 2, 4]
    np.testing.assert_allclose(got["logits"][others], clean["logits"][others], atol=1e-6)
    for key in ("depth", "status"):
        np.testing.assert_array_equal(got[key][others], clean[key][others])


def test_a_sample_does_not_depend_on_its_batch(deep):
    x = images(64) * np.logspace(-2, 1, 64, dtype=np.float32).reshape(64, 1, 1, 1)
    together = deep.predict(x, batch_size=64, verbose=0)
    for size in (1, 7):
        apart = deep.predict(x[-21:], batch_size=size, verbose=0)
        np.testing.assert_allclose(apart["logits"], together["logits"][-21:], atol=1e-5)
        np.testing.assert_array_equal(apart["depth"], together["depth"][-21:])
        np.testing.assert_array_equal(apart["status"], together["status"][-21:])


@pytest.mark.parametrize("name", ["nais_adaptive", "resnet_sh_na_bn"])
def test_logits_are_float32_under_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = make_small(name)
    assert {v.dtype for v in model.weights} == {"float32"}
    out = ki.with_depth(model)(images())
    assert out["logits"].dtype == tf.float32
    assert out["depth"].dtype == out["status"].dtype == tf.int32
    assert np.isfinite(out["logits"]).all()


@pytest.mark.parametrize("name", ["nais10", "resnet54_plain"])
def test_normalisation_where_the_dimensions_change_and_before_the_head(name):
    layers = [layer.name for layer in make_small(name).layers if "norm" in layer.name]
    assert layers == ["transition1_norm", "transition2_norm", "head_norm"]


@pytest.mark.parametrize("name", ["resnet54", "resnet54_wide"])
def test_a_block_of_the_paper_s_resnet_is_convolution_normalisation_activation(name):
    layers = [layer.name for layer in make_small(name).layers]
    for stage in (1, 2):
        first = layers.index(f"transition{stage}_norm") + 1
        block = f"stage{stage}_block1"
        assert layers[first : first + 3] == [f"{block}_conv", f"{block}_norm", block]
        assert make_small(name).get_layer(block).activation == "relu"
