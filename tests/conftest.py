"""What several test files share: a clean Keras, blocks of both kinds, and their NumPy doubles."""

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

# Two logical CPUs, for the tests with replicas; TensorFlow takes this only before it runs anything.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# A GPU would round float32 products to TF32, and miss the tolerances.
tf.config.experimental.enable_tensor_float_32_execution(False)

# Neither square nor as large as the kernels of the tests: swapped axes and wrong padding show.
IMAGE = (5, 4)
CHANNELS = 6
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}
SLOPES = {"relu": lambda x: np.where(x > 0, 1.0, 0.0), "tanh": lambda x: 1 - np.tanh(x) ** 2}


def pytest_collection_finish(session):
    """Leave what the imports made, which stays to the end, out of each collection of garbage."""
    gc.collect()
    gc.freeze()


def seed_keras():
    """Set the seeds that Keras and NumPy draw from, without that of TensorFlow.

    With a new seed TensorFlow compiles every function anew, which took a sixth of the time. It
    counts for TensorFlow's own random numbers alone, and Keras draws from other seeds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.random, "set_seed", lambda seed: None)
        keras.utils.set_random_seed(0)


def pytest_configure(config):
    """Let pytest-randomly choose the order alone: tests have seeds of their own."""
    if config.pluginmanager.hasplugin("randomly"):
        config.option.randomly_reset_seed = False


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """Start each fixture of a module or a session from the same seeds, in any order of tests."""
    if fixturedef.scope != "function":
        seed_keras()


@pytest.fixture(scope="module", autouse=True)
def clean_tensorflow():
    """Start each file from the same seed of TensorFlow, with nothing compiled."""
    tf.random.set_seed(0)


@pytest.fixture(autouse=True)
def clean_keras():
    """Start each test from the same seeds and leave the default precision, in any order."""
    seed_keras()
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


def dense_conv_matrix(kernel, height, width):
    """Write a zero-padded convolution of stride 1 as the matrix on flat images that it is."""
    kh, kw, channels, filters = kernel.shape
    matrix = np.zeros((height, width, filters, height, width, channels))
    for i, j, a, b in np.ndindex(height, width, kh, kw):
        y, x = i + a - kh // 2, j + b - kw // 2
        if 0 <= y < height and 0 <= x < width:
            matrix[i, j, :, y, x, :] += kernel[a, b].T
    return matrix.reshape(height * width * filters, height * width * channels)


class NumpyDouble:
    """Update k of a NAIS block in float64, x + h sigma(A x + B u + b) on flat vectors.

    A and B are dense matrices, of the convolutions too; they come from the layer's weights and
    from the papers' formulas, not from the layer's code.
    """

    def __init__(self, layer, k=0, image=IMAGE):
        def value(weight):
            array = np.asarray(weight.numpy(), np.float64)
            return array if layer.tied else array[k]

        self.step_size = layer.step_size
        self.activation = layer.activation
        if isinstance(layer, ki.NAISDense):
            R = value(layer.R)
            self.A = -R.T @ R - layer.shift * np.eye(layer.units)
            self.b = value(layer.b)
            self.B = value(layer.B).T if layer.non_autonomous else None
            return
        C, middle = value(layer.C).copy(), layer.kernel_size // 2
        for c in range(layer.filters):
            delta = 0.0 if layer.delta is None else value(layer.delta)[c]
            C[middle, middle, c, c] = -1.0 - delta
        self.A = dense_conv_matrix(C, *image)
        self.B = dense_conv_matrix(value(layer.D), *image)
        self.b = np.tile(value(layer.E), image[0] * image[1])

    def preactivation(self, x, u):
        drive = 0.0 if self.B is None else flat(u) @ self.B.T
        return flat(x) @ self.A.T + drive + self.b

    def change(self, x, u):
        pre = self.preactivation(x, u)
        return self.step_size * ACTIVATIONS[self.activation](pre).reshape(np.shape(x))

    def slopes(self, x, u):
        return SLOPES[self.activation](self.preactivation(x, u))

    def jacobian(self, slopes):
        """Return d x(k+1) / d x(k) of one sample whose activations have these slopes."""
        return np.eye(len(self.A)) + self.step_size * slopes[:, None] * self.A


def flat(samples):
    return np.asarray(samples, np.float64).reshape(len(samples), -1)


@pytest.fixture
def conv_matrix():
    return dense_conv_matrix


@pytest.fixture
def numpy_double():
    return NumpyDouble


@pytest.fixture
def make_block():
    """Return a function that makes a small block of a kind, `"dense"` or `"conv"`."""

    def make(kind, **settings):
        settings = {"max_unroll": 5, **settings}
        layer = ki.NAISDense if kind == "dense" else ki.NAISConv2D
        return layer(CHANNELS, **settings)

    return make


@pytest.fixture
def make_inputs():
    """Return a function that draws inputs for a block of a kind, float32."""

    def make(kind, samples=3, channels=CHANNELS, scale=1.0, seed=1):
        shape = (samples, channels) if kind == "dense" else (samples, *IMAGE, channels)
        return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)

    return make


@pytest.fixture
def excess():
    """Return a function that says by how much a block's weights pass their bound, in float64.

    The bound of Algorithm 1 is relative, so that both kinds are around 1.
    """

    def measure(layer):
        stacks = 1 if layer.tied else layer.max_unroll
        worst = -np.inf
        for k in range(stacks):
            if isinstance(layer, ki.NAISDense):
                R = np.asarray(layer.R.numpy() if layer.tied else layer.R.numpy()[k], np.float64)
                bound = 1 - 2 * layer.shift if layer.bound is None else layer.bound
                worst = max(worst, np.linalg.norm(R.T @ R) / bound - 1)
                continue
            C = np.asarray(layer.C.numpy() if layer.tied else layer.C.numpy()[k], np.float64)
            middle = layer.kernel_size // 2
            for c in range(layer.filters):
                delta = -1 - C[middle, middle, c, c]
                others = np.abs(C[..., c]).sum() - abs(1 + delta)
                worst = max(worst, others + abs(delta) - (1 - layer.margin))
                worst = max(worst, abs(delta) - (1 - layer.center_margin))
        return worst

    return measure


@pytest.fixture
def set_weights():
    """Return a function that brings a block's weights into one of the states they may be in.

    `"initial"`; `"random"`: drawn, then projected; `"thrown"`: one optimizer step of a huge rate;
    `"trained"`: fifteen steps towards random targets. Biases and delta are not zero but for the
    first.
    """

    def prepare(layer, inputs, how, seed=2):
        if not layer.built:
            layer.build(inputs.shape)
        rng = np.random.default_rng(seed)
        weights = layer.trainable_variables
        if how == "random":
            for weight in weights:
                weight.assign(rng.normal(size=weight.shape))
                if weight.constraint is not None:
                    weight.assign(weight.constraint(weight))
        elif how == "thrown":
            gradients = [tf.constant(rng.normal(size=w.shape), w.dtype) for w in weights]
            keras.optimizers.SGD(1e6).apply(gradients, weights)
        elif how == "trained":
            targets = rng.normal(size=inputs.shape).astype(inputs.dtype)
            optimizer = keras.optimizers.Adam(0.1)
            for _ in range(15):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(tf.square(layer(inputs) - targets))
                optimizer.apply(tape.gradient(loss, weights), weights)
        elif how != "initial":
            raise ValueError(how)
        return layer

    return prepare


@pytest.fixture
def tiny_digitclutter(tmp_path, monkeypatch):
    """Make Digitclutter a set of 96 + 12 + 20 pictures, and return the folder it goes to."""
    # Not at the top: TensorFlow Datasets takes its time to load.
    from keras_iterconv.datasets import digitclutter_builder

    monkeypatch.setattr(digitclutter_builder, "SIZES", (96, 12, 20))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"
