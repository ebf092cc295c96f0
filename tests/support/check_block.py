"""The contract of a block: what every block does, whatever its update is.

`check_block` runs all checks; `CHECKS` holds them by name, for tests that show each by itself.
Blocks are used through `keras_iterconv.layers.protocol` and the public methods of `IteratedBlock`.
Stages whose updates differ implement these too; what a block does not have is not checked.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_graph import all_graphs, subgraphs
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.exporting.saved_model import write_saved_model
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.unrolling import Status
from tests.support.comparisons import assert_near, assert_same_predictions

# Rounding of one number in half precision, and how much of it a chain of contracting updates keeps.
HALF_PRECISION = {"mixed_float16": 2**-10, "mixed_bfloat16": 2**-7}
CLASSES = 3


class BlockCase(NamedTuple):
    """A block to check.

    Attributes:
        make: A function that returns a new block. Its keyword arguments are arguments of the block:
            `dtype`, and `gradient` where the block has this argument.
        inputs: One batch of inputs, float32 `[N, ...]` of at least four samples, or a list of
            batches for a block of several inputs. For adaptive depth, their depths differ.
        gradients: The gradient modes to compare with the exact gradient, with the tolerance of
            each, relative to the largest number; None for a block without the argument `gradient`.
        batch_statistics: Whether a sample depends on its batch in training, as in a residual stage.
            Gradients are then compared outside training.
    """

    make: Callable[..., keras.layers.Layer]
    inputs: np.ndarray | list[np.ndarray]
    gradients: dict[str, float] | None = None
    batch_statistics: bool = False


def check_block(
    make: Callable[..., keras.layers.Layer],
    inputs: np.ndarray | list[np.ndarray],
    gradients: dict[str, float] | None = None,
    checks: Sequence[str] | None = None,
) -> None:
    """Check a block; the arguments are those of `BlockCase`, and the names of the checks to run."""
    for name in CHECKS if checks is None else checks:
        CHECKS[name](BlockCase(make, inputs, gradients))


def _ready(case: BlockCase, like: keras.layers.Layer | None = None, **settings):
    """Return a built block with the weights of another block, or with random weights.

    Random weights are the initial ones with noise, so that none is zero, then constrained.
    """
    block = case.make(**settings)
    block(case.inputs)
    if like is not None:
        block.set_weights(like.get_weights())
        return block
    rng = np.random.default_rng(11)
    for weight in block.trainable_variables:
        noise = 0.05 * rng.normal(size=weight.shape)
        weight.assign(weight + tf.constant(noise, weight.dtype))
        # In the order of creation, as an optimizer does.
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
    if hasattr(block, "restore_guarantee"):
        block.restore_guarantee()
    return block


def _map(function: Callable, inputs):
    """Apply a function to the batch, or to each of several batches."""
    return [function(x) for x in inputs] if isinstance(inputs, list) else function(inputs)


def _first(inputs) -> np.ndarray:
    return inputs[0] if isinstance(inputs, list) else inputs


def _run(block, inputs, **options) -> dict[str, np.ndarray]:
    """Return state, depth and status of a call, as NumPy arrays."""
    unrolled = block(inputs, return_depth=True, **options)
    return {
        "state": np.asarray(unrolled.state, np.float64),
        "depth": np.asarray(unrolled.depth),
        "status": np.asarray(unrolled.status),
    }


def _assert_same(found, expected, rtol=1e-5) -> None:
    """Compare two results: equal counts, states up to rounding of the largest number."""
    largest = max(1.0, np.abs(expected["state"]).max(initial=0))
    np.testing.assert_allclose(found["state"], expected["state"], rtol=0, atol=rtol * largest)
    for name in ("depth", "status"):
        np.testing.assert_array_equal(found[name], expected[name])


def _apply(block, tensor, inputs):
    """Call a block in a functional model; layers make the further inputs of the block."""
    if not isinstance(inputs, list):
        return block(tensor)
    further = [keras.layers.Dense(x.shape[-1])(tensor) for x in inputs[1:]]
    return block([tensor, *further])


def _classifier(block, inputs) -> ki.IterativeModel:
    """Return a small model that has the block inside, from its first input to logits."""
    image = keras.Input(_first(inputs).shape[1:])
    state = _apply(block, image, inputs)
    if len(state.shape) > 2:
        pooling = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
        state = pooling[len(state.shape)]()(state)
    return ki.IterativeModel(image, keras.layers.Dense(CLASSES)(state))


def check_saving(case: BlockCase) -> None:
    """The configuration and the `.keras` file give the same block back."""
    block = _ready(case)
    copy = type(block).from_config(block.get_config())
    assert copy.get_config() == block.get_config()
    inputs = _map(lambda x: keras.Input(x.shape[1:]), case.inputs)
    state, depth, status = block(inputs, return_depth=True)
    model = keras.Model(inputs, {"state": state, "depth": depth, "status": status})
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "block.keras")
        loaded = keras.models.load_model(Path(folder) / "block.keras")
    expected, found = model(case.inputs), loaded(case.inputs)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    twin = loaded.get_layer(block.name)
    assert type(twin) is type(block)
    assert twin.get_config() == block.get_config()
    for ours, theirs in zip(block.weights, twin.weights, strict=True):
        assert (ours.path, type(ours.constraint)) == (theirs.path, type(theirs.constraint))


def _loop(block, inputs) -> list[tf.Tensor]:
    """Return the last state of each sample alone, by a Python loop over `block.update`."""
    states = []
    for n in range(len(inputs)):
        one = inputs[n : n + 1]
        state = block.make_initial_state(one) if hasattr(block, "make_initial_state") else one
        for k in range(block.max_unroll):
            before, state = state, block.update(state, one, k)
            if block.threshold is not None and tf.norm(state - before) < block.threshold:
                break
        states.append(state)
    return states


def check_gradients(case: BlockCase) -> None:
    """Each gradient mode gives TensorFlow's gradient of single updates, in float64.

    A block without `update` is compared with central differences along a random direction.
    """
    first = _ready(case, dtype="float64")
    training = not case.batch_statistics
    inputs = _map(lambda x: tf.constant(x, tf.float64), case.inputs)
    upstream = np.random.default_rng(7).normal(size=first(inputs).shape)

    def loss_of_call(block, inputs):
        return tf.reduce_sum(upstream * block(inputs, training=training))

    def loss_of_loop(block, inputs):
        return tf.reduce_sum(upstream * tf.concat(_loop(block, inputs), axis=0))

    if not hasattr(first, "update"):
        _check_along_a_direction(first, inputs, loss_of_call)
        return
    expected = _gradients(first, inputs, loss_of_loop)
    for mode, tolerance in (case.gradients or {None: 1e-10}).items():
        settings = {} if mode is None else {"gradient": mode}
        block = _ready(case, like=first, dtype="float64", **settings)
        assert_near(_gradients(block, inputs, loss_of_call), expected, tolerance)


def _gradients(block, inputs, loss: Callable) -> list[tf.Tensor]:
    """Return the gradients of `loss(block, inputs)` in the weights and the inputs."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(block, inputs)
    return tf.nest.flatten(tape.gradient(value, [*block.trainable_variables, inputs]))


def _check_along_a_direction(block, inputs, loss: Callable) -> None:
    """Compare the gradients of the inputs with a central difference along a random direction."""
    rng, step = np.random.default_rng(5), 1e-6
    directions = _map(lambda x: tf.constant(rng.normal(size=x.shape)), inputs)

    def value(distance):
        moved = tf.nest.map_structure(lambda x, d: x + distance * d, inputs, directions)
        return loss(block, moved)

    of_inputs = _gradients(block, inputs, loss)[len(block.trainable_variables) :]
    parts = zip(of_inputs, tf.nest.flatten(directions), strict=True)
    found = sum(tf.reduce_sum(gradient * direction) for gradient, direction in parts)
    np.testing.assert_allclose(found, (value(step) - value(-step)) / (2 * step), rtol=1e-6)


def check_samples(case: BlockCase) -> None:
    """A sample alone has the state, depth and status that it has in the batch."""
    block = _ready(case)
    together = _run(block, case.inputs)
    if block.threshold is not None:
        assert len(set(together["depth"])) > 1, "the inputs must have several depths"
    for n in range(len(_first(case.inputs))):
        alone = _run(block, _map(lambda x: x[n : n + 1], case.inputs))  # noqa: B023
        _assert_same(alone, {name: value[n : n + 1] for name, value in together.items()})


def check_nan(case: BlockCase) -> None:
    """A NaN stays in its sample: in values, and in the gradients of a loss without that sample.

    The gradients are promised by adjustable blocks: in other blocks, the zero gradient of that
    sample is multiplied by its NaN; the statistics of a batch with a NaN are NaN.
    """
    block = _ready(case)
    bad, others = 1, [n for n in range(len(_first(case.inputs))) if n != 1]
    spoilt = _map(np.copy, case.inputs)
    _first(spoilt)[bad].flat[2] = np.nan
    found, expected = _run(block, spoilt), _run(block, case.inputs)
    assert found["status"][bad] == Status.NOT_FINITE
    assert not np.isfinite(found["state"][bad]).all()
    pick = lambda result: {name: value[others] for name, value in result.items()}  # noqa: E731
    _assert_same(pick(found), pick(expected))
    if not block.adjustable or case.batch_statistics:
        return

    upstream = np.random.default_rng(7).normal(size=found["state"].shape).astype(np.float32)
    upstream[bad] = 0

    def masked_loss(block, inputs):
        state = block(inputs, training=True)
        return tf.reduce_sum(tf.where(upstream == 0, 0.0, upstream * state))

    got, clean = (
        _gradients(block, _map(tf.constant, inputs), masked_loss)
        for inputs in (spoilt, case.inputs)
    )
    assert_near(got, clean, 1e-5)


def check_precision(case: BlockCase) -> None:
    """In mixed precision the weights and the state are float32, and the output is near."""
    block = _ready(case)
    expected = np.asarray(block(case.inputs), np.float64)
    for policy, rounding in HALF_PRECISION.items():
        half = _ready(case, like=block, dtype=policy)
        state = half(case.inputs)
        assert state.dtype == half.compute_dtype
        assert {weight.dtype for weight in half.weights} <= {"float32"}
        if half.adjustable:
            start = half.make_initial_state(_map(tf.constant, case.inputs))
            assert start.dtype == half.update(start, case.inputs).dtype == tf.float32
        # Inputs, weights and activations are rounded, relative to the largest terms of their sums.
        largest = np.abs(expected).max()
        np.testing.assert_allclose(
            np.asarray(state, np.float32), expected, rtol=0, atol=4 * rounding * largest
        )


def check_fit(case: BlockCase) -> None:
    """A small model with the block trains: the loss falls and every weight moves."""
    block = case.make()
    model = _classifier(block, case.inputs)
    images = np.concatenate([_first(case.inputs)] * 4)
    labels = np.arange(len(images)) % len(_first(case.inputs)) % CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    before = [weight.numpy() for weight in block.trainable_variables]
    losses = model.fit(images, labels, batch_size=len(images), epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    for weight, old in zip(block.trainable_variables, before, strict=True):
        assert np.abs(weight.numpy() - old).max() > 0, weight.path


def check_export(case: BlockCase) -> None:
    """SavedModel and ONNX give logits, depth and status of the Keras model."""
    block = _ready(case)
    model = _classifier(block, case.inputs)
    images = _first(case.inputs)
    expected = {name: value.numpy() for name, value in ki.with_depth(model)(images).items()}
    channels = images.shape[-1]
    plain = Preprocessing((0.0,) * channels, (1.0,) * channels)
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(fold(model), folder, plain)
        serve = tf.saved_model.load(folder).signatures["serving_default"]
        assert_same_predictions(serve(image=tf.constant(images)), expected)
    converted = to_onnx(fold(model), plain, {})
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [*expected, "probabilities"]
    found = dict(zip(names, session.run(names, {"image": images}), strict=True))
    assert_same_predictions(found, expected)
    if block.channels_first:
        loops = [n for g in all_graphs(converted.graph) for n in g.node if n.op_type == "Loop"]
        assert loops
        assert "Transpose" not in {name for loop in loops for name in _operators(loop)}


def _operators(loop: onnx.NodeProto) -> list[str]:
    """Return the operators in the body of a loop, also in its inner graphs."""
    bodies = [part for body in subgraphs(loop) for part in all_graphs(body)]
    return [node.op_type for body in bodies for node in body.node]


CHECKS: dict[str, Callable[[BlockCase], None]] = {
    "saving": check_saving,
    "gradients": check_gradients,
    "samples": check_samples,
    "nan": check_nan,
    "precision": check_precision,
    "fit": check_fit,
    "export": check_export,
}
