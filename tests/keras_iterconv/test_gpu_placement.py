"""Where a GPU would run blocks and training steps, and what would be copied, without a GPU."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers.normalization import BatchNormalization
from tests.support import iterated_updates
from tests.support.simulated_gpu import (
    copies,
    has_gpu_kernels,
    innermost,
    loops,
    lowered,
    node_defs,
    on_gpu,
)

pytestmark = [
    pytest.mark.tensorflow_operators,
    pytest.mark.skipif(
        not has_gpu_kernels(), reason="this build of TensorFlow registers no kernels of GPUs"
    ),
]

FEATURES, IMAGES = np.ones((4, 6), np.float32), np.ones((4, 6, 6, 3), np.float32)
DENSE, CONV = partial(ki.NAISDense, 6, max_unroll=4), partial(ki.NAISConv2D, 3, max_unroll=4)
STAGE = partial(ki.ResidualStage, 3, 2)
# What the loops copy to the host in each update, by the operations that compute it: nothing; the
# condition of the loop; in the exact backward pass, whether all samples made the update; and in
# loops that are never compacted also the depths.
FIXED, ADAPTIVE, MASKED = (), ("LogicalAnd",), ("All",)
WHOLE_BATCH = ("All", "Cast", "LogicalAnd")
# The indices of the samples that stop, and of those that go on.
ANDERSON = ("GatherV2", "GatherV2")


class Case(NamedTuple):
    """A block, and what its loops copy to the host in each update.

    Attributes:
        make: A function that returns a new block.
        inputs: A batch.
        training: What each loop copies in values and gradients of training; None to leave it out.
        evaluation: What each loop copies in evaluation; None where another case has these loops.
    """

    make: Callable
    inputs: np.ndarray
    training: set | None
    evaluation: set | None = None


def iterate(name, training, evaluation=None, **settings):
    update = iterated_updates.CASES[name]
    return Case(partial(update.make, **settings), update.inputs, training, evaluation)


def batch_statistics():
    update = keras.Sequential([keras.layers.Dense(6), keras.layers.BatchNormalization()])
    return ki.Iterate(update, max_unroll=4, stop=0.1)


CASES = {
    "dense": Case(DENSE, FEATURES, {FIXED}),
    "dense, frozen, adaptive": Case(
        partial(DENSE, threshold=0.1, gradient="frozen"), FEATURES, {ADAPTIVE}
    ),
    "dense, implicit": Case(
        partial(DENSE, threshold=0.1, gradient="implicit", activation="tanh"), FEATURES, {ADAPTIVE}
    ),
    "conv": Case(CONV, IMAGES, {FIXED}, {FIXED}),
    "conv, adaptive": Case(partial(CONV, threshold=0.1), IMAGES, {ADAPTIVE, MASKED}, {ADAPTIVE}),
    "conv, recompute, adaptive": Case(
        partial(CONV, threshold=0.1, gradient="recompute"), IMAGES, {ADAPTIVE, MASKED}
    ),
    "conv, untied, frozen": Case(partial(CONV, tied=False, gradient="frozen"), IMAGES, {FIXED}),
    "conv, settling, half precision": Case(
        partial(CONV, settling=0.1, dtype="mixed_float16"), IMAGES, {FIXED}
    ),
    "conv, anderson": Case(
        partial(CONV, threshold=0.1, activation="tanh", solver="anderson"),
        IMAGES,
        None,
        {ADAPTIVE, ANDERSON},
    ),
    # Its updates differ, and are no loop.
    "stage": Case(STAGE, IMAGES, set()),
    "stage, capped": Case(
        partial(STAGE, lipschitz_cap=0.9, skip_from="stage_input"), IMAGES, set(), set()
    ),
    "stage, tied, capped, adaptive": Case(
        partial(STAGE, "stage_input", lipschitz_cap=0.9, tied=True, threshold=0.1),
        IMAGES,
        {ADAPTIVE, MASKED},
    ),
    "iterate, attention": iterate("attention", {ADAPTIVE, MASKED}),
    "iterate, truncated": iterate(
        "GRU", {WHOLE_BATCH, MASKED}, {ADAPTIVE}, gradient="truncated", truncate=2
    ),
    "iterate, fixed, implicit": iterate(
        "two states", {FIXED, ADAPTIVE}, stop=None, gradient="implicit"
    ),
    "iterate, halting": iterate("halting", {FIXED}, {ADAPTIVE}),
    "iterate, prediction": iterate("prediction", {WHOLE_BATCH, MASKED}, {ADAPTIVE}),
    "iterate, divergence": iterate(
        "divergence",
        {WHOLE_BATCH, ("All", "LogicalAnd"), MASKED},
        {ADAPTIVE},
        gradient="recompute",
    ),
    "iterate, batch statistics": Case(batch_statistics, FEATURES, {WHOLE_BATCH, MASKED}),
}


def trace(case, training):
    """Return the concrete function of a block's outputs, in training with all gradients."""
    block = case.make()
    block(case.inputs)

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = block(x, training=training)
            loss = tf.add_n([tf.reduce_sum(z) for z in tf.nest.flatten(outputs)])
        sources = [x, *block.trainable_variables]
        return (loss, tape.gradient(loss, sources)) if training else outputs

    spec = tf.TensorSpec([None, *case.inputs.shape[1:]])
    return tf.function(run, autograph=False).get_concrete_function(spec)


def check_placement(function):
    """Check that nothing is bound to a device, or cannot run on a GPU; return the lowered graph."""
    nodes = list(node_defs(function))
    assert {node.device for node in nodes} == {""}
    assert not [node.op for node in nodes if "PyFunc" in node.op]
    graph = lowered(function)
    placed = on_gpu(graph)
    on_host = {op.type for op in graph.get_operations() if not placed.get(op.name, True)}
    # Variables of int32, such as `max_unroll` and the optimizer's counter, and the words of errors.
    assert on_host <= {"ReadVariableOp", "AssignAddVariableOp", "Const"}
    return graph


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (n, m)
        for n, c in CASES.items()
        for m in ("training", "evaluation")
        if getattr(c, m) is not None
    ],
)
def test_blocks_run_on_a_gpu_and_copy_no_state_to_the_host(name, mode):
    case = CASES[name]
    graph = check_placement(trace(case, mode == "training"))
    per_update = {loop: [] for loop in innermost(set(loops(graph).values()))}
    for copy in copies(graph):
        if copy.loop:
            # Counters, flags, indices of samples.
            assert copy.dtype in ("bool", "int32", "int64")
        if copy.to_host and copy.loop in per_update:
            per_update[copy.loop].append(copy.operation)
    found = {tuple(sorted(operations)) for operations in per_update.values()}
    assert found == getattr(case, mode)


def test_the_simulation_finds_what_a_gpu_cannot_run():
    @tf.function(autograph=False)
    def run(x):
        with tf.device("CPU:0"):
            x = x + 1
        (x,) = tf.while_loop(
            lambda x: tf.reduce_sum(x) < 3,
            lambda x: (x + tf.strings.to_number(tf.strings.as_string(x)),),
            (x,),
        )
        return tf.numpy_function(lambda x: x, [x], tf.float32)

    function = run.get_concrete_function(tf.TensorSpec([3]))
    nodes = list(node_defs(function))
    assert any("CPU:0" in node.device for node in nodes)
    assert any("PyFunc" in node.op for node in nodes)
    graph = lowered(function)
    placed = on_gpu(graph)
    assert {op.type for op in graph.get_operations() if not placed.get(op.name, True)} >= {
        "AsString", "StringToNumber",
    }  # fmt: skip
    found = {(c.to_host, c.operation, c.dtype) for c in copies(graph) if c.loop}
    assert found >= {(True, "Identity", "float32"), (False, "StringToNumber", "float32")}


def test_a_whole_training_step_runs_on_a_gpu():
    # Projections, a cap with its power iteration, coupling, clipping, momentum.
    image = keras.Input((5, 5, 3))
    state = STAGE(lipschitz_cap=0.9)(image)
    state = ki.NAISConv2D(3, max_unroll=2, threshold=0.1, tied=False)(state)
    state = BatchNormalization()(keras.layers.Conv2D(4, 3, strides=2)(state))
    state = ki.NAISDense(6, max_unroll=2)(keras.layers.Flatten()(state))
    model = ki.IterativeModel(image, keras.layers.Dense(3)(state))
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        coupling=0.5,
    )
    images, labels = np.ones((2, 5, 5, 3), np.float32), np.zeros(2, np.int32)
    model.evaluate(images, labels, verbose=0)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
    specs = tf.TensorSpec([None, 5, 5, 3]), tf.TensorSpec([None], tf.int32)
    check_placement(step.get_concrete_function(*specs))
