"""Rewritten graphs answer as before; graphs are made by hand and run by ONNX Runtime."""

from graphlib import CycleError

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_iterconv.exporting import onnx_graph

OPSET = 18
node = helper.make_node


def value(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def run(graph, **feeds):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def loop_graph():
    """x(k+1) = relu(x(k) W + b) for n steps; the sums of all states are collected."""
    body = helper.make_graph(
        [
            node("MatMul", ["x_in", "W"], ["product"]),
            node("Add", ["product", "b"], ["sum"]),
            node("Relu", ["sum"], ["x_out"]),
            node("Identity", ["condition_in"], ["condition_out"]),
            node("ReduceSum", ["x_out"], ["scanned"], keepdims=0),
            node("Neg", ["sum"], ["unused"]),
        ],
        "body",
        [
            value("k", [], TensorProto.INT64),
            value("condition_in", [], TensorProto.BOOL),
            value("x_in", [None, 2]),
        ],
        [
            value("condition_out", [], TensorProto.BOOL),
            value("x_out", [None, 2]),
            value("scanned", []),
        ],
    )
    return helper.make_graph(
        [
            node("Identity", ["x"], ["start"]),
            node("Loop", ["n", "", "start"], ["x_end", "sums"], body=body),
            node("Add", ["x_end", "b"], ["y"]),
        ],
        "outer",
        [value("n", [], TensorProto.INT64), value("x", [None, 2])],
        [value("y", [None, 2]), value("sums", [None])],
        [numpy_helper.from_array(W, "W"), numpy_helper.from_array(b, "b")],
    )


W, b = np.float32([[0.5, -0.2], [0.7, 0.3]]), np.float32([0.1, 0.4])


def expected(n, x):
    sums = []
    for _ in range(n):
        x = np.maximum(x @ W + b, 0)
        sums.append(x.sum())
    return x + b, sums


STEPS = [
    lambda graph: None,
    onnx_graph.remove_identities,
    onnx_graph.remove_unused,
    onnx_graph.place_constants,
    onnx_graph.fold_constants,
    onnx_graph.sort_nodes,
    onnx_graph._shorten_names,
    onnx_graph.simplify,
]
NAMES = ["nothing", "identities", "unused", "constants", "fold", "sort", "names", "simplify"]


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


def test_a_constant_lies_where_all_its_readers_are():
    graph = loop_graph()
    onnx_graph.place_constants(graph)
    assert [t.name for t in graph.initializer] == ["b"]
    # A small constant is copied to the graphs that read it.
    copies = {t.name: numpy_helper.to_array(t) for t in loop_in(graph)[1].initializer}
    assert sorted(copies) == ["W", "b:1"]
    np.testing.assert_array_equal(copies["b:1"], b)


def test_a_large_constant_of_two_branches_is_stored_once_and_reshaped_in_each():
    graph, large = loop_graph(), np.arange(34, dtype=np.float32).reshape(17, 1, 2)
    branches = {
        f"{name}_branch": helper.make_graph(
            [node("Add", ["y", f"large_{name}"], [name])],
            name,
            [],
            [value(name, [17, None, 2])],
            [numpy_helper.from_array(large, f"large_{name}")],
        )
        for name in ("then", "else")
    }
    graph.node.append(node("If", ["yes"], ["z"], **branches))
    graph.output.append(value("z", [17, None, 2]))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    onnx_graph.place_constants(graph)
    stored = [list(t.dims) for part in onnx_graph.all_graphs(graph) for t in part.initializer]
    assert stored.count([17, 1, 2]) == 1
    assert [17, 1, 2] in [list(t.dims) for t in graph.initializer]
    for part in onnx_graph.subgraphs(graph.node[-1]):
        assert operators(part) == ["Reshape", "Add"]
    y, _, z = run(graph, n=np.array(2, np.int64), x=np.float32([[1, 2]]))
    np.testing.assert_array_equal(z, y + large)


def test_each_inlined_graph_has_names_of_its_own():
    inner = helper.make_graph(
        [node("Neg", ["p"], ["q"]), node("Add", ["q", "one"], ["r"])],
        "inner",
        [value("p", [None])],
        [value("r", [None])],
        [numpy_helper.from_array(np.float32([1]), "one")],
    )
    nodes = [node("Twice", ["x"], ["y"]), node("Twice", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "outer", [value("x", [None])], [value("z", [None])])
    onnx_graph.inline(graph, "Twice", inner)
    assert operators(graph) == ["Neg", "Add"] * 2
    (z,) = run(graph, x=np.float32([3]))
    np.testing.assert_array_equal(z, [3])


def test_nodes_come_after_what_they_read_also_inside():
    graph = loop_graph()
    nodes = list(graph.node)
    nodes.append(node("Neg", ["bias"], ["b"]))
    del graph.node[:], graph.initializer[1]
    graph.initializer.append(numpy_helper.from_array(-b, "bias"))
    graph.node.extend(reversed(nodes))
    onnx_graph.sort_nodes(graph)
    assert operators(graph).index("Neg") < operators(graph).index("Loop")
    x = np.float32([[1, 2]])
    np.testing.assert_allclose(run(graph, n=np.array(3), x=x)[0], expected(3, x)[0], rtol=1e-5)


def test_nodes_in_a_circle_are_an_error():
    circle = [node("Neg", ["p"], ["q"]), node("Neg", ["q"], ["p"])]
    graph = helper.make_graph(circle, "circle", [], [value("p")])
    with pytest.raises(CycleError):
        onnx_graph.sort_nodes(graph)


def test_a_graph_goes_in_the_place_of_a_node():
    """Also in a loop; its names do not meet those around it, what is not given becomes an input."""
    inner = helper.make_graph(
        [
            node("Mul", ["p", "twice"], ["sum"]),
            node("Add", ["sum", "more"], ["q"]),
        ],
        "inner",
        [value("p", [None, 2]), value("more", [2])],
        [value("q", [None, 2])],
        [numpy_helper.from_array(np.float32(2), "twice")],
    )
    graph = loop_graph()
    body = loop_in(graph)[1]
    body.node[2].op_type = "Stand"
    graph.node[2].op_type = "Stand"
    del graph.node[2].input[1]
    onnx_graph.inline(graph, "Stand", inner)
    assert [v.name for v in graph.input] == ["n", "x", "more"]
    assert "Stand" not in [o for part in onnx_graph.all_graphs(graph) for o in operators(part)]
    x, more = np.float32([[1, 2], [-3, 0.5]]), np.float32([0.5, -1])
    y, _ = run(graph, n=np.array(2), x=x, more=more)
    for _ in range(2):
        x = 2 * (x @ W + b) + more
    np.testing.assert_allclose(y, 2 * x + more, rtol=1e-5)


def test_transposes_that_undo_each_other_are_left_out():
    graph = helper.make_graph(
        [
            node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
            node("Transpose", ["a"], ["c"], perm=[0, 3, 1, 2]),
            node("Transpose", ["a"], ["d"], perm=[0, 2, 3, 1]),
            # An output itself.
            node("Transpose", ["a"], ["e"], perm=[0, 3, 1, 2]),
            node("Relu", ["c"], ["y"]),
            node("Relu", ["d"], ["z"]),
        ],
        "graph",
        [value("x", [1, 2, 3, 4])],
        [value("y", [1, 2, 3, 4]), value("z", [1, 4, 2, 3]), value("e", [1, 2, 3, 4])],
    )
    onnx_graph.simplify(graph)
    assert operators(graph) == ["Transpose", "Transpose", "Identity", "Relu", "Relu"]
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype("f")
    y, z, same = run(graph, x=x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(z, np.maximum(x.transpose(0, 2, 3, 1).transpose(0, 2, 3, 1), 0))


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


def test_nodes_that_read_only_constants_become_constants():
    graph = loop_graph()
    _, body = loop_in(graph)
    graph.initializer.remove(next(c for c in graph.initializer if c.name == "W"))
    body.initializer.append(numpy_helper.from_array(np.ascontiguousarray(W.T), "W_transposed"))
    nodes = [node("Transpose", ["W_transposed"], ["W"], perm=[1, 0]), *body.node]
    del body.node[:]
    body.node.extend(nodes)
    onnx_graph.fold_constants(graph)
    assert "Transpose" not in operators(body)
    assert [constant.name for constant in body.initializer] == ["W"]
    x = np.float32([[1, -2]])
    y, sums = run(graph, n=np.array(3), x=x)
    right, right_sums = expected(3, x)
    np.testing.assert_allclose(y, right, rtol=1e-6)
    np.testing.assert_allclose(sums, right_sums, rtol=1e-6)


def test_a_branch_on_a_constant_is_not_folded():
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(operator, ["x"], [f"{name}_z"])], name, [], [value(f"{name}_z", [2])]
        )
        for name, operator in (("then", "Relu"), ("else", "Exp"))
    }
    graph = helper.make_graph(
        [node("If", ["c"], ["z"], **branches), node("Neg", ["z"], ["y"])],
        "graph",
        [value("x", [2])],
        [value("y", [2])],
        [numpy_helper.from_array(np.array(True), "c")],
    )
    onnx_graph.fold_constants(graph)
    (y,) = run(graph, x=np.float32([1, -2]))
    np.testing.assert_array_equal(y, [-1, 0])


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


def test_operators_are_counted_also_inside():
    graph = loop_graph()
    counted = onnx_graph.count_operators(helper.make_model(graph))
    assert counted == {
        "Identity": 2,
        "Add": 2,
        "Loop": 1,
        "MatMul": 1,
        "Relu": 1,
        "ReduceSum": 1,
        "Neg": 1,
    }
    assert list(counted.values()) == sorted(counted.values(), reverse=True)
