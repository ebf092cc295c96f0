"""Updates of images in the layout `"NCHW"`: shapes, gradients, and values by ONNX Runtime.

On a CPU TensorFlow has no convolutions of this layout; exported files and GPUs compute it.
"""

from functools import partial

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx

import keras_iterconv as ki
from tests.support.simulated_gpu import lowered, node_defs, on_gpu

CHANNELS, IMAGE = 3, (6, 5)
STAGE = partial(ki.ResidualStage, CHANNELS, 3, tied=True)
BLOCKS = {
    "conv": partial(ki.NAISConv2D, CHANNELS, max_unroll=3),
    "conv, untied": partial(ki.NAISConv2D, CHANNELS, max_unroll=3, tied=False, activation="tanh"),
    "stage": partial(STAGE, "previous"),
    "stage, x + f(z), capped": partial(STAGE, "stage_input", lipschitz_cap=0.9),
}


def to_nchw(x):
    return np.moveaxis(x, -1, 1)


@pytest.fixture(params=BLOCKS)
def block(request):
    block = BLOCKS[request.param]()
    block(np.zeros((1, *IMAGE, CHANNELS), np.float32))
    rng = np.random.default_rng(0)
    for weight in block.trainable_variables:
        weight.assign(weight + tf.constant(0.1 * rng.normal(size=weight.shape), weight.dtype))
    return block


def step_of(block, data_format):
    """Return the second update as a function of inputs and state in a layout."""

    def step(inputs, state):
        update = block.build_update(inputs, data_format).with_drives()
        return update.step(state, tf.constant(1))[0]

    return step


def formats(function):
    """Return the layouts of the operations that have one."""
    return {
        node.attr["data_format"].s.decode()
        for node in node_defs(function)
        if "data_format" in node.attr
    }


def test_an_update_in_nchw_is_that_in_nhwc(block):
    spec = tf.TensorSpec([None, CHANNELS, *IMAGE])
    step = tf.function(step_of(block, "NCHW"), autograph=False)
    function = step.get_concrete_function(spec, spec)
    assert function.outputs[0].shape.as_list() == [None, CHANNELS, *IMAGE]
    assert formats(function) == {"NCHW"}
    assert "Transpose" not in {node.op for node in node_defs(function)}
    converted, _ = tf2onnx.convert.from_function(step, [spec, spec], opset=18)
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(1)
    images = {
        name: rng.normal(size=(4, *IMAGE, CHANNELS)).astype(np.float32)
        for name in ("inputs", "state")
    }
    names = [each.name for each in session.get_inputs()]
    (found,) = session.run(None, {name: to_nchw(images[name]) for name in names})
    expected = step_of(block, "NHWC")(*map(tf.constant, images.values()))
    np.testing.assert_allclose(found, to_nchw(expected.numpy()), rtol=1e-5, atol=1e-5)


def test_the_gradients_of_an_update_in_nchw_run_on_a_gpu(block):
    spec = tf.TensorSpec([None, CHANNELS, *IMAGE])

    def run(inputs, state):
        with tf.GradientTape() as tape:
            tape.watch([inputs, state])
            new = step_of(block, "NCHW")(inputs, state)
        sources = [state, *block.trainable_variables]
        return tape.gradient(new, sources)

    function = tf.function(run, autograph=False).get_concrete_function(spec, spec)
    for gradient, weight in zip(function.outputs[1:], block.trainable_variables, strict=True):
        assert gradient.shape.is_compatible_with(weight.shape)
    assert formats(function) == {"NCHW"}
    graph = lowered(function)
    placed = on_gpu(graph)
    assert [op.type for op in graph.get_operations() if placed.get(op.name) is False] == []
