"""Fixtures of all tests: a clean Keras, and what `tests.support` builds."""

import keras_iterconv  # noqa: F401  # isort: skip  # settles TensorFlow's environment first

import gc
import importlib.util
import os

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

# ONNX Runtime would send reports over the network, and keep them in a data base that all processes
# of a user share. The processes that tests start inherit this.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Until the tests are collected: what they import is no garbage, and looking for it takes seconds.
gc.disable()

# So that a failed assertion in `tests.support` shows its values.
pytest.register_assert_rewrite("tests.support")

from keras_iterconv.unrolling import tracing  # noqa: E402
from tests.support import builders  # noqa: E402
from tests.support.numpy_double import NumpyDouble, dense_conv_matrix  # noqa: E402

# Two logical CPUs, for the tests with replicas; TensorFlow takes this only before it runs anything.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# Starts TensorFlow, so that no test changes the number of threads for those after it.
tf.config.list_logical_devices()

# Each process of the tests would take all memory of a GPU.
for gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(gpu, True)

# A GPU would round float32 products to TF32, and miss the tolerances.
tf.config.experimental.enable_tensor_float_32_execution(False)


def pytest_collection_finish(session):
    """Leave what the imports made, which stays to the end, out of each collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


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


def pytest_runtest_setup(item):
    """Skip tests that need what may be missing, unless they alone are asked for."""
    wanted = item.config.option.markexpr
    if item.get_closest_marker("browser") is not None and wanted != "browser":
        pytest.skip("tests in a browser are run by `pytest -n 0 -m browser`")
    for marker, package, extra in (("pytorch", "torch", "bench"), ("site", "mkdocs", "docs")):
        if item.get_closest_marker(marker) is None or wanted == marker:
            continue
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is in the extra `{extra}`")


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """Start each fixture of a module or a session from the same seeds, in any order of tests."""
    if fixturedef.scope != "function":
        seed_keras()


@pytest.fixture(scope="module", autouse=True)
def clean_tensorflow(request):
    """Start each file from the same seed of TensorFlow, with nothing compiled.

    Half of the time in which TensorFlow compiles a small net went to its optimizer of graphs. It
    runs in the files that are marked so.
    """
    tf.random.set_seed(0)
    marked = request.node.get_closest_marker("graph_optimizer") is not None
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not marked})
    yield
    # TensorFlow keeps each custom gradient that a graph has traced, also those of Keras's losses,
    # and with it the graph: ten gigabytes at the end of all tests.
    gradients = ops.gradient_registry._registry
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]
    # It keeps graphs beyond a file, whose gradients are gone now.
    tracing._trace.cache_clear()


@pytest.fixture(autouse=True)
def clean_keras():
    """Start each test from the same seeds and leave the default precision, in any order."""
    seed_keras()
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


@pytest.fixture
def conv_matrix():
    return dense_conv_matrix


@pytest.fixture
def numpy_double():
    return NumpyDouble


@pytest.fixture
def make_block():
    return builders.make_block


@pytest.fixture
def make_inputs():
    return builders.make_inputs


@pytest.fixture
def excess():
    return builders.excess


@pytest.fixture
def set_weights():
    return builders.set_weights


@pytest.fixture
def untraced():
    """Run what TensorFlow would trace line by line: for single calls that is much quicker."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def tiny_digitclutter(tmp_path, monkeypatch):
    """Make Digitclutter a set of 96 + 12 + 20 pictures, and return the folder it goes to."""
    # Not at the top: TensorFlow Datasets takes its time to load.
    from keras_iterconv.datasets import digitclutter_builder

    monkeypatch.setattr(digitclutter_builder, "SIZES", (96, 12, 20))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"
