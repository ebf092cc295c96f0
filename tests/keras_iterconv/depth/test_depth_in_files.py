"""Files of models keep the depth of all their blocks."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki


@keras.saving.register_keras_serializable("tests")
class Made(ki.IterativeModel):
    """A class that makes its block itself."""

    def __init__(self, depth=20):
        super().__init__()
        self.depth = depth
        self.block = ki.NAISDense(4, max_unroll=depth, threshold=0.01)

    def call(self, x, training=None):
        return self.block(x)


@keras.saving.register_keras_serializable("tests")
class MadeInLayer(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = ki.NAISDense(4, max_unroll=20, threshold=0.01)

    def build(self, shape):
        self.block.build(shape)

    def call(self, x):
        return self.block(x)


@pytest.mark.parametrize("kind", ["class", "layer", "view"])
def test_files_keep_the_depth_of_blocks_that_a_class_makes_anew(kind, tmp_path):
    model, x = Made(21), np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    if kind == "layer":
        inputs = keras.Input((4,))
        model = ki.IterativeModel(inputs, MadeInLayer()(inputs))
    model(x)
    ki.set_depth(model, max_unroll=7, threshold=0.5)
    expected = ki.with_depth(model)(x)["depth"]
    saved = ki.with_depth(model) if kind == "view" else model
    saved.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    (block,) = ki.iterated_blocks(loaded)
    assert (block.max_unroll, block.threshold) == (7, 0.5)
    found = loaded(x) if kind == "view" else ki.with_depth(loaded)(x)
    np.testing.assert_array_equal(found["depth"], expected)


def test_a_configuration_that_is_edited_counts():
    """The settings of a graph's layers stand in one place."""
    inputs = keras.Input((4,))
    model = ki.IterativeModel(inputs, ki.NAISDense(4, max_unroll=5)(inputs))
    config = model.get_config()
    config["layers"][1]["config"]["max_unroll"] = 50
    assert ki.processing_depth(ki.IterativeModel.from_config(config)) == 50


def test_a_pretrained_net_behind_a_rescaling_and_a_new_head(tmp_path):
    """Transfer learning as Keras's guide does it."""
    keras.utils.set_random_seed(0)
    base = ki.load_pretrained("nais_mnist_adaptive")
    base.trainable = False
    inputs = keras.Input((28, 28, 1))
    x = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    model = ki.IterativeModel(inputs, keras.layers.Dense(3, name="new")(x), name="transferred")
    x = np.random.default_rng(0).uniform(0, 255, (12, 28, 28, 1)).astype(np.float32)
    x[:4] /= 10
    expected = ki.with_depth(base)(x / 127.5 - 1)
    found = ki.with_depth(model)(x)
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    assert [call.path for call in ki.block_calls(model)] == [
        f"{base.name}/{call.path}" for call in ki.block_calls(base)
    ]
    frozen = [weight.numpy() for weight in base.weights]
    head = model.get_layer("new").kernel.numpy()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, np.arange(12) % 3, epochs=2, verbose=0)
    assert np.abs(model.get_layer("new").kernel - head).max() > 1e-4
    for weight, before in zip(base.weights, frozen, strict=True):
        np.testing.assert_array_equal(weight, before)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    for each in (loaded, ki.with_depth(loaded)):
        assert each(x) is not None
    again = ki.with_depth(loaded)(x)
    np.testing.assert_array_equal(again["depth"], expected["depth"])
    np.testing.assert_allclose(again["logits"], model(x), atol=1e-6)
    ki.set_depth(loaded, max_unroll=2, threshold=None)
    np.testing.assert_array_equal(ki.with_depth(loaded)(x)["depth"], np.full((12, 1), 2))


def test_a_view_of_a_subclassed_model_can_be_saved(tmp_path):
    keras.utils.set_random_seed(0)

    @keras.saving.register_keras_serializable("tests")
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.block = ki.NAISDense(3, threshold=0.1)

        def call(self, x):
            return self.block(x)

    model, x = Own(), np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model(x)
    view = ki.with_depth(model)
    view.save(tmp_path / "view.keras")
    loaded = keras.models.load_model(tmp_path / "view.keras")
    for name, value in view(x).items():
        np.testing.assert_array_equal(loaded(x)[name], value)
