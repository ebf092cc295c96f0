"""Rewritten graphs answer as before; graphs are made by hand and run by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import onnx_graph

OPSET = 18
node = helper.make_node


def value(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, array):
    return node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array), name))


def run(graph, **feeds):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def loop_graph():
    """x(k+1) = relu(x(k) W' + 2 b) for n steps, as a converter writes it: all of it in the loop.

    W and b are handed on, W' is transposed and 1 + 1 added at each iteration; the sums of all
    states are collected; what is read out includes the weights.
    """
    body = helper.make_graph(
        [
            constant("one", np.float32(1)),
            node("Add", ["one", "one"], ["two"]),
            node("Transpose", ["W_in"], ["W_turned"], perm=[1, 0]),
            node("Mul", ["b_in", "two"], ["doubled"]),
            node("MatMul", ["x_in", "W_turned"], ["product"]),
            node("Add", ["product", "doubled"], ["sum"]),
            node("Relu", ["sum"], ["x_out"]),
            node("Identity", ["W_in"], ["W_handed"]),
            node("Identity", ["W_handed"], ["W_out"]),
            node("Identity", ["condition_in"], ["condition_out"]),
            node("ReduceSum", ["x_out"], ["scanned"], keepdims=0),
            node("Neg", ["sum"], ["unused"]),
        ],
        "body",
        [
            value("k", [], TensorProto.INT64),
            value("condition_in", [], TensorProto.BOOL),
            value("W_in", [2, 2]),
            value("x_in", [None, 2]),
            value("b_in", [2]),
        ],
        [
            value("condition_out", [], TensorProto.BOOL),
            value("W_out", [2, 2]),
            value("x_out", [None, 2]),
            value("b_in", [2]),
            value("scanned", []),
        ],
    )
    return helper.make_graph(
        [
            node("Identity", ["x"], ["start"]),
            node(
                "Loop", ["n", "", "W", "start", "b"], ["W_end", "x_end", "b_end", "sums"], body=body
            ),
            node("Add", ["x_end", "b_end"], ["shifted"]),
            node("MatMul", ["shifted", "W_end"], ["y"]),
        ],
        "outer",
        [value("n", [], TensorProto.INT64), value("x", [None, 2])],
        [value("y", [None, 2]), value("sums", [None])],
        [
            numpy_helper.from_array(np.float32([[0.5, -0.2], [0.7, 0.3]]), "W"),
            numpy_helper.from_array(np.float32([0.1, 0.4]), "b"),
        ],
    )


def expected(n, x):
    W, b = np.float32([[0.5, -0.2], [0.7, 0.3]]), np.float32([0.1, 0.4])
    sums = []
    for _ in range(n):
        x = np.maximum(x @ W.T + 2 * b, 0)
        sums.append(x.sum())
    return (x + b) @ W, sums


STEPS = [
    lambda graph: None,
    onnx_graph.hoist_invariants,
    onnx_graph.remove_identities,
    lambda graph: onnx_graph.fold_constants(graph, OPSET),
    onnx_graph.remove_unused,
    onnx_graph._shorten_names,
    lambda graph: onnx_graph.simplify(graph, OPSET),
]
NAMES = ["nothing", "hoist", "identities", "fold", "unused", "names", "simplify"]


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_a_rewritten_loop_answers_as_before(step, n):
    graph = loop_graph()
    step(graph)
    x = np.float32([[1, 2], [-3, 0.5]])
    y, sums = run(graph, n=np.array(n, np.int64), x=x)
    np.testing.assert_allclose(y, expected(n, x)[0], rtol=1e-5)
    np.testing.assert_allclose(sums, expected(n, x)[1], rtol=1e-5)


def loop_in(graph):
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    return loop, onnx_graph.subgraphs(loop)[0]


def operators(graph):
    return [node.op_type for node in graph.node]


def test_a_loop_keeps_its_true_state_alone():
    graph = loop_graph()
    onnx_graph.hoist_invariants(graph)
    loop, body = loop_in(graph)
    assert list(loop.input) == ["n", "", "start"]
    assert list(loop.output) == ["x_end", "sums"]
    assert [v.name for v in body.input] == ["k", "condition_in", "x_in"]
    assert [v.name for v in body.output] == ["condition_out", "x_out", "scanned"]
    onnx_graph.remove_unused(graph)
    assert operators(body) == ["MatMul", "Add", "Relu", "Identity", "ReduceSum"]


def test_a_state_that_is_swapped_is_no_invariant():
    body = helper.make_graph(
        [node("Identity", [a], [b]) for a, b in (("c", "c_out"), ("p", "q_out"), ("q", "p_out"))],
        "body",
        [value("k", [], TensorProto.INT64), value("c", [], TensorProto.BOOL)]
        + [value(name, [2]) for name in "pq"],
        [value("c_out", [], TensorProto.BOOL), value("p_out", [2]), value("q_out", [2])],
    )
    graph = helper.make_graph(
        [node("Loop", ["n", "", "x", "y"], ["first", "second"], body=body)],
        "outer",
        [value("n", [], TensorProto.INT64), value("x", [2]), value("y", [2])],
        [value("first", [2]), value("second", [2])],
    )
    onnx_graph.simplify(graph, OPSET)
    x, y = np.float32([1, 2]), np.float32([3, 4])
    for n in range(4):
        first, second = run(graph, n=np.array(n, np.int64), x=x, y=y)
        np.testing.assert_array_equal(first, y if n % 2 else x)
        np.testing.assert_array_equal(second, x if n % 2 else y)


def test_constants_are_computed_once_and_equal_ones_kept_once():
    graph = helper.make_graph(
        [
            constant("a", np.float32([1, 2])),
            constant("twin", np.float32([1, 2])),
            constant("whole", np.int64([1, 2])),
            node("Add", ["a", "twin"], ["sum"]),
            node("Exp", ["sum"], ["power"]),
            node("Mul", ["x", "power"], ["scaled"]),
            node("Add", ["scaled", "a"], ["once"]),
            node("Add", ["once", "twin"], ["y"]),
            # An output that is a constant must still be a node's.
            node("Neg", ["a"], ["negative"]),
        ],
        "graph",
        [value("x", [2])],
        [value("y", [2]), value("negative", [2]), value("whole", [2], TensorProto.INT64)],
    )
    onnx_graph.fold_constants(graph, OPSET)
    onnx_graph.remove_unused(graph)
    assert sorted(operators(graph)) == ["Add", "Add", "Identity", "Mul", "Neg"]
    kept = [numpy_helper.to_array(t) for t in graph.initializer]
    assert sum(np.array_equal(k, [1, 2]) and k.dtype == np.float32 for k in kept) == 1
    assert len(kept) == 3
    y, negative, whole = run(graph, x=np.float32([3, 5]))
    np.testing.assert_allclose(y, np.float32([3, 5]) * np.exp([2, 4]) + [2, 4], rtol=1e-6)
    np.testing.assert_array_equal(negative, [-1, -2])
    np.testing.assert_array_equal(whole, [1, 2])


def test_what_a_branch_reads_is_used():
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(operator, ["doubled"], [f"{name}_y"]), node("Neg", ["x"], [f"{name}_unused"])],
            name,
            [],
            [value(f"{name}_y", [2])],
        )
        for name, operator in (("then", "Relu"), ("else", "Exp"))
    }
    graph = helper.make_graph(
        [
            node("Add", ["x", "x"], ["doubled"]),
            node("Exp", ["doubled"], ["nobody"]),
            node("Neg", ["nobody"], ["reads_this"]),
            node("If", ["c"], ["y"], **branches),
        ],
        "graph",
        [value("x", [2]), value("c", [], TensorProto.BOOL)],
        [value("y", [2])],
    )
    onnx_graph.remove_unused(graph)
    assert operators(graph) == ["Add", "If"]
    assert sorted(operators(part) for part in onnx_graph.subgraphs(graph.node[1])) == [
        ["Exp"],
        ["Relu"],
    ]
    for c, right in ((True, [2, 0]), (False, np.exp([2, -4]))):
        (y,) = run(graph, x=np.float32([1, -2]), c=np.array(c))
        np.testing.assert_allclose(y, right, rtol=1e-6)


def test_names_are_short_and_those_outside_stay():
    graph = loop_graph()
    onnx_graph._shorten_names(graph)
    assert [v.name for v in graph.input] == ["n", "x"]
    assert [v.name for v in graph.output] == ["y", "sums"]
    inside = {
        name
        for part in onnx_graph.all_graphs(graph)
        for made in part.node
        for name in (*made.input, *made.output)
    } - {"", "n", "x", "y", "sums"}
    assert all(name.isdigit() and len(name) <= 2 for name in inside)


def test_operators_are_counted_with_functions_written_out():
    loop = loop_in(loop_graph())[0]
    inner = helper.make_graph([node("Relu", ["u"], ["v"])], "f", [value("u")], [value("v")])
    function = onnx_graph.make_function(inner, "Block", OPSET)
    calls = [node("Block", [a], [b], domain=onnx_graph.DOMAIN) for a, b in ("xp", "pq")]
    graph = helper.make_graph([*calls, loop, node("Neg", ["q"], ["y"])], "g", [], [])
    model = helper.make_model(graph, functions=[function])
    counted = onnx_graph.count_operators(model)
    assert counted["Relu"] == 2 + 1
    assert (counted["Loop"], counted["MatMul"], counted["Neg"]) == (1, 1, 2)
    assert "Block" not in counted
    assert list(counted.values()) == sorted(counted.values(), reverse=True)
