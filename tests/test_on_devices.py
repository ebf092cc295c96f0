"""What a GPU must show: `pytest -m gpu` runs these tests on one, beside the CPU as reference.

Without the marker they run on the second logical CPU, some for a few blocks, so that they are known
to work. On a GPU, TensorFlow places everything by itself, as it does for users.
"""

import contextlib
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support import iterated_updates
from tests.support.comparisons import assert_near

pytestmark = pytest.mark.graph_optimizer

REFERENCE = "CPU:0"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def draw(*shape):
    """Return samples of several scales, so that depths differ."""
    scales = np.geomspace(0.05, 2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (scales * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


FEATURES, IMAGES = draw(6, 5), draw(6, 6, 5, 3)
DENSE, CONV = partial(ki.NAISDense, 5, max_unroll=6), partial(ki.NAISConv2D, 3, max_unroll=6)
STAGE = partial(ki.ResidualStage, 3, 2)
TANH = {"activation": "tanh", "threshold": 0.05, "step_size": 0.5}
BLOCKS = {
    "dense": (DENSE, FEATURES),
    "dense, untied, recompute": (
        partial(DENSE, tied=False, initial_state="input", gradient="recompute"), FEATURES
    ),
    "dense, implicit": (partial(DENSE, max_unroll=100, gradient="implicit", **TANH), FEATURES),
    "conv": (CONV, IMAGES),
    "conv, adaptive": (partial(CONV, threshold=0.3, step_size=0.5), IMAGES),
    "conv, frozen, adaptive": (
        partial(CONV, threshold=0.3, step_size=0.5, gradient="frozen"), IMAGES
    ),
    "conv, anderson": (partial(CONV, max_unroll=30, solver="anderson", **TANH), IMAGES),
    "stage": (STAGE, IMAGES),
    "stage, capped": (partial(STAGE, "stage_input", lipschitz_cap=0.9), IMAGES),
    "stage, tied, capped, adaptive": (
        partial(
            ki.ResidualStage, 3, 40, "stage_input", lipschitz_cap=0.9, tied=True, threshold=0.01
        ),
        IMAGES,
    ),
    **{
        f"iterate, {name}": (case.make, case.inputs)
        for name, case in iterated_updates.CASES.items()
        if name != "depthwise"
    },
}  # fmt: skip


@pytest.fixture(params=["CPU:1", pytest.param("GPU:0", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "GPU:0" and not tf.config.list_logical_devices("GPU"):
        pytest.skip("needs a GPU; TensorFlow sees none")
    return request.param


def blocks_and_devices(*on_cpu):
    """Return the pairs of all blocks and a GPU, and of some blocks and the second CPU."""
    pairs = [pytest.param(name, "GPU:0", marks=pytest.mark.gpu) for name in BLOCKS]
    return [*pairs, *((name, "CPU:1") for name in on_cpu)]


def on(device):
    """Return a scope in which TensorFlow runs on a device."""
    return contextlib.nullcontext() if device == "GPU:0" else tf.device(device)


def twins(make, inputs, device):
    """Return a new block on the reference and on a device, of the same random weights."""
    blocks = []
    for place in (REFERENCE, device):
        keras.utils.set_random_seed(0)
        with on(place):
            block = make()
            block(inputs)
        blocks.append(block)
    blocks[1].set_weights(blocks[0].get_weights())
    # Those of int32, such as `max_unroll`, stay on the host.
    assert all(weight.value.device.endswith(device) for weight in blocks[1].trainable_variables)
    return blocks


def depths_near(block, inputs):
    """Return the depths for thresholds a little above and below, between which rounding decides."""
    threshold, found = block.threshold, []
    for factor in (1 + 1e-4, 1 - 1e-4):
        block.threshold = threshold * factor
        found.append(block(inputs, return_depth=True).depth.numpy())
    block.threshold = threshold
    return found


@pytest.mark.parametrize(
    ("name", "device"),
    blocks_and_devices(
        "dense, untied, recompute",
        "conv, adaptive",
        "conv, anderson",
        "stage, tied, capped, adaptive",
        "iterate, two states",
        "iterate, prediction",
    ),
    indirect=["device"],
)
def test_a_block_computes_what_it_computes_on_a_cpu(name, device):
    make, inputs = BLOCKS[name]
    reference, block = twins(make, inputs, device)
    with on(REFERENCE):
        expected = reference(inputs, return_depth=True)
        least = most = expected.depth.numpy()
        # That of a prediction is a number of updates.
        if reference.threshold is not None and reference.threshold % 1:
            least, most = depths_near(reference, inputs)
    with on(device):
        found = block(inputs, return_depth=True)
    for tensor in tf.nest.flatten(found.state):
        assert tensor.device.endswith(device)
    depth = found.depth.numpy()
    assert (least <= depth).all()
    assert (depth <= most).all()
    equal = depth == expected.depth.numpy()
    assert equal.sum() > len(equal) / 2
    np.testing.assert_array_equal(found.status.numpy()[equal], expected.status.numpy()[equal])
    for ours, theirs in zip(*map(tf.nest.flatten, (found.state, expected.state)), strict=True):
        largest = np.abs(theirs).max()
        np.testing.assert_allclose(ours[equal], theirs[equal], rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("name", "device"),
    blocks_and_devices("conv, frozen, adaptive", "stage", "iterate, halting"),
    indirect=["device"],
)
def test_gradients_are_those_on_a_cpu(name, device):
    make, inputs = BLOCKS[name]
    results = []
    for block, place in zip(twins(make, inputs, device), (REFERENCE, device), strict=True):

        @tf.function(autograph=False)
        def gradients(x, block=block):
            with tf.GradientTape() as tape:
                tape.watch(x)
                states = tf.nest.flatten(block(x, training=True))
                loss = tf.add_n([tf.reduce_mean(z**2) for z in states])
            return tape.gradient(loss, [x, *block.trainable_variables])

        with on(place):
            results.append(gradients(tf.constant(inputs)))
    assert all(tensor.device.endswith(device) for tensor in results[1])
    assert_near(results[1], results[0], 1e-4)


def make_model():
    """Return a net with a block of each kind."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5, 3))
    state = ki.ResidualStage(3, 2, lipschitz_cap=0.9, name="stage")(inputs)
    state = ki.NAISConv2D(3, max_unroll=3, tied=False)(state)
    state = keras.layers.Conv2D(4, 3, strides=2)(state)
    state = ki.NAISDense(5, max_unroll=5, threshold=0.1)(keras.layers.Flatten()(state))
    return ki.IterativeModel(inputs, keras.layers.Dense(3)(state))


def fit(model):
    labels = np.arange(len(IMAGES)) % 3
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), LOSS, metrics=["accuracy"], coupling=0.5
    )
    # The last batch is smaller.
    return model.fit(IMAGES, labels, batch_size=4, epochs=2, shuffle=False, verbose=0).history


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_training_is_that_on_a_cpu(policy, device):
    with on(REFERENCE):
        expected = make_model()
        start = expected.get_weights()
        losses = fit(expected)["loss"]
    keras.config.set_dtype_policy(policy)
    with on(device):
        model = make_model()
        model.set_weights(start)
        found = fit(model)["loss"]
        assert model.trainable_variables[0].value.device.endswith(device)
        # Keras compiles for XLA on a GPU, which blocks are without.
        assert model.jit_compile is False
    tolerance = 1e-4 if policy == "float32" else 2e-2
    np.testing.assert_allclose(found, losses, rtol=tolerance)
    moved = np.concatenate(
        [np.ravel(new - old) for new, old in zip(model.get_weights(), start, strict=True)]
    )
    right = np.concatenate(
        [np.ravel(new - old) for new, old in zip(expected.get_weights(), start, strict=True)]
    )
    assert np.linalg.norm(moved - right) < 5 * tolerance * np.linalg.norm(right)


def test_exported_files_run(device, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    with on(REFERENCE):
        model = make_model()
        expected = ki.with_depth(model)(IMAGES)
        ki.export_saved_model(model, tmp_path / "saved")
        ki.export_onnx(model, tmp_path / "model.onnx")
    with on(device):
        serve = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        found = serve(**{name: tf.constant(IMAGES)})
    assert found["logits"].device.endswith(device)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found["depth"], expected["depth"])
    provider = {"CPU:1": "CPUExecutionProvider", "GPU:0": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"needs ONNX Runtime with {provider}, of the package onnxruntime-gpu")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=[provider])
    names = ["logits", "depth"]
    (image,) = [each.name for each in session.get_inputs() if len(each.shape) == 4]
    values = dict(zip(names, session.run(names, {image: IMAGES}), strict=True))
    np.testing.assert_allclose(values["logits"], expected["logits"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(values["depth"], expected["depth"])
