"""The ONNX file of the demonstration: one image, and the norm of the change by each update."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keras_iterconv.exporting.onnx_graph import (
    remove_identities,
    remove_unused,
    sort_nodes,
    subgraphs,
    used_names,
)

NORMS = "norms"


def with_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an exported classifier for one image that also returns what its blocks measure.

    Each block of the exported file has a branch for a single image, which is one loop. Here this
    loop takes the place of both branches, and the excess of each update, the norm less the
    threshold, becomes an output of it.

    Args:
        model: An exported classifier with required inputs, whose blocks stop by the norm of the
            change.

    Returns:
        A model with images `[1, H, W, C]` and one more output `norms`, float32 `[updates]`: the
        norm of the change by each update, the blocks one after another.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    nodes, excesses = list(graph.node), []
    del graph.node[:]
    for node in nodes:
        branch = subgraphs(node)[0] if node.op_type == "If" else None
        if branch is None:
            graph.node.append(node)
            continue
        excesses.append(_return_excess(branch))
        graph.initializer.extend(branch.initializer)
        graph.node.extend(branch.node)
        ends = zip(branch.output, node.output, strict=True)
        graph.node.extend(helper.make_node("Identity", [old.name], [new]) for old, new in ends)
    one = numpy_helper.from_array(np.array([1]), f"{NORMS}/axis")
    graph.initializer.append(one)
    graph.node.extend(
        (
            helper.make_node("Concat", excesses, [f"{NORMS}/column"], axis=0),
            helper.make_node("Squeeze", [f"{NORMS}/column", one.name], [f"{NORMS}/excess"]),
            helper.make_node("Add", [f"{NORMS}/excess", "threshold"], [NORMS]),
        )
    )
    graph.output.append(helper.make_tensor_value_info(NORMS, TensorProto.FLOAT, ["updates"]))
    for value in (*graph.input, *graph.output[:-1]):
        sizes = value.type.tensor_type.shape.dim
        if sizes:
            sizes[0].dim_value = 1
    remove_identities(graph)
    remove_unused(graph)
    # ONNX Runtime would warn of each constant that only the left branches have read.
    used = used_names(graph)
    for constant in [each for each in graph.initializer if not used[each.name]]:
        graph.initializer.remove(constant)
    sort_nodes(graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _return_excess(branch: onnx.GraphProto) -> str:
    """Let the loop of a branch return the excess of each update, and return the output's name."""
    (loop,) = (node for node in branch.node if node.op_type == "Loop")
    (body,) = subgraphs(loop)
    last = f"{loop.output[-1]}/each"
    body.node.append(helper.make_node("Identity", [body.output[-1].name], [last]))
    body.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, [1]))
    loop.output.append(f"{loop.output[-1]}/all")
    return loop.output[-1]
