"""Graphs by the names of TensorFlow's operators, which a release of TensorFlow may change.

A failure here after an upgrade of TensorFlow is a reason to look at the graph, and no fault by
itself: values and gradients are tested elsewhere. `pytest -m "not tensorflow_operators"` leaves
these tests out.
"""

import keras
import pytest
import tensorflow as tf

import keras_iterconv as ki

pytestmark = pytest.mark.tensorflow_operators


def operators(function):
    """Return the names of all TensorFlow operators of a concrete function, loop bodies included."""
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(body.node_def for body in graph.library.function)]
    return {node.op for nodes in bodies for node in nodes}


@pytest.mark.parametrize("training", [False, True])
def test_adaptive_nets_have_no_operator_that_converters_lack(training):
    block = ki.NAISDense(5, max_unroll=3, threshold=0.1)
    function = tf.function(lambda x: block(x, training=training))
    found = operators(function.get_concrete_function(tf.TensorSpec((None, 6))))
    assert "Sqrt" in found  # of the norms
    assert "EuclideanNorm" not in found


def test_recomputing_runs_each_block_again():
    convolutions = {}
    for gradient in ("unroll", "recompute"):
        stage = ki.ResidualStage(3, blocks=3, gradient=gradient)

        @tf.function
        def run(x, stage=stage):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(stage(x, training=True))
            return tape.gradient(loss, x)

        graph = run.get_concrete_function(tf.TensorSpec((4, 5, 4, 3))).graph
        convolutions[gradient] = sum(op.type == "Conv2D" for op in graph.get_operations())
    assert convolutions == {"unroll": 2 * 3, "recompute": 4 * 3}


@pytest.mark.parametrize("name", ["pcr_w8", "icr_w8", "resnet_w8", "nais_adaptive"])
def test_no_gradient_of_a_training_step_is_a_sum_in_the_order_of_arrival(name):
    blocks = 3 if name.endswith("_w8") else 1
    model = ki.create_model(name, (8, 8, 1), 10, blocks=blocks)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    @tf.function
    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    graph = gradients.get_concrete_function(tf.zeros([2, 8, 8, 1]), tf.zeros([2], tf.int32)).graph
    sums = [op for op in graph.get_operations() if op.type == "AddN"]
    assert [op.name for op in sums if len(op.inputs) > 2] == []
