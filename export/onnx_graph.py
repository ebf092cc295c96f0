"""What a converter leaves to be done in an ONNX graph with loops.

It carries every weight of a loop as a state that each iteration hands on, and lays it out anew each
time. Here what an iteration does not change becomes a name of the graph around the loop, and what
depends on constants alone becomes a constant.
"""

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# That of the functions in a file.
DOMAIN = "keras_iterconv"


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs inside a node: a loop's body, or two branches."""
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all graphs inside it, the outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def make_function(graph: onnx.GraphProto, name: str, opset: int) -> onnx.FunctionProto:
    """Return a graph, simplified, as a function of its inputs."""
    values = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in graph.initializer
    ]
    return helper.make_function(
        DOMAIN,
        name,
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        [*values, *graph.node],
        [helper.make_opsetid("", opset)],
    )


def simplify(graph: onnx.GraphProto, opset: int) -> None:
    """Hoist what loops do not change, compute what is constant, drop what nothing reads."""
    for part in all_graphs(graph):
        del part.value_info[:]
        for node in part.node:
            if node.op_type == "Loop":
                _declare_scalars(node)
    hoist_invariants(graph)
    remove_identities(graph)
    cancel_transposes(graph)
    fold_constants(graph, opset)
    remove_identities(graph)
    remove_unused(graph)
    _shorten_names(graph)


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number the values inside: a converter's names take more room than small weights."""
    outside = {value.name for value in (*graph.input, *graph.output)}
    numbers = (str(number) for number in itertools.count())
    names = {name: name for name in ("", *outside)}

    def rename(name):
        if name not in names:
            names[name] = next(number for number in numbers if number not in outside)
        return names[name]

    for part in all_graphs(graph):
        part.doc_string = part.name = ""
        for node in part.node:
            node.name = node.doc_string = ""
            node.input[:] = [rename(name) for name in node.input]
            node.output[:] = [rename(name) for name in node.output]
        for value in (*part.input, *part.output, *part.initializer):
            value.name = rename(value.name)
    # A graph must have a name.
    for number, part in enumerate(all_graphs(graph)):
        part.name = f"graph{number}"


def _declare_scalars(loop: onnx.NodeProto) -> None:
    """Say that a loop's counter and condition are scalars, which the runtime wants to be told."""
    (body,) = subgraphs(loop)
    for value in body.input[:2]:
        value.type.tensor_type.shape.SetInParent()


def rename_outputs(graph: onnx.GraphProto, names) -> None:
    """Give the outputs other names, in their order."""
    for output, name in zip(graph.output, names, strict=True):
        graph.node.append(helper.make_node("Identity", [output.name], [name]))
        output.name = name


def hoist_invariants(graph: onnx.GraphProto) -> None:
    """Move what the iterations of loops do not change into the graph around them."""
    for node in list(graph.node):
        for inner in subgraphs(node):
            hoist_invariants(inner)
        if node.op_type == "Loop":
            for place in reversed(_unchanged(node)):
                _drop_state(graph, node, place)
            _move_out(graph, node)


def _move_out(graph, loop) -> None:
    """Move the nodes that read nothing of a loop's body out of it."""
    (body,) = subgraphs(loop)
    inside = {value.name for value in (*body.input, *body.initializer)}
    inside.update(name for node in body.node for name in node.output)
    kept = {value.name for value in body.output}
    for node in list(body.node):
        if inside.isdisjoint(node.input) and not subgraphs(node) and kept.isdisjoint(node.output):
            body.node.remove(node)
            inside.difference_update(node.output)
            graph.node.insert(list(graph.node).index(loop), node)


def _unchanged(loop: onnx.NodeProto) -> list[int]:
    """Return the places of the states that a loop's body hands on as they came."""
    (body,) = subgraphs(loop)
    source = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}

    def origin(name):
        while name in source:
            name = source[name]
        return name

    # A body takes the iteration's number and the condition first, and returns the condition first.
    states = zip(body.input[2:], body.output[1:], strict=False)
    return [place for place, (x, y) in enumerate(states) if origin(y.name) == x.name]


def _drop_state(graph, loop, place) -> None:
    (body,) = subgraphs(loop)
    outer, inner, result = loop.input[2 + place], body.input[2 + place].name, loop.output[place]
    _rename(body, inner, outer)
    del body.input[2 + place], body.output[1 + place]
    del loop.input[2 + place], loop.output[place]
    # What came out of the loop is what went in.
    graph.node.insert(
        list(graph.node).index(loop) + 1, helper.make_node("Identity", [outer], [result])
    )


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename what a graph, and the graphs inside it, read."""
    for part in all_graphs(graph):
        for node in part.node:
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new
        for output in part.output:
            if output.name == old:
                # An output must be of the graph itself.
                part.node.append(helper.make_node("Identity", [new], [old]))


def remove_identities(graph: onnx.GraphProto) -> None:
    """Remove the nodes that hand on a value under another name."""
    for part in all_graphs(graph):
        outputs = {output.name for output in part.output}
        for node in list(part.node):
            if node.op_type == "Identity" and node.output[0] not in outputs:
                part.node.remove(node)
                _rename(part, node.output[0], node.input[0])


def cancel_transposes(graph: onnx.GraphProto) -> None:
    """Read the original where a transpose undoes another one, in whichever graph that is."""
    made_by = {node.output[0]: node for part in all_graphs(graph) for node in part.node}
    for part in all_graphs(graph):
        for node in part.node:
            before = made_by.get(node.input[0]) if node.op_type == "Transpose" else None
            if before is None or before.op_type != "Transpose":
                continue
            first, second = (list(n.attribute[0].ints) for n in (before, node))
            if [first[axis] for axis in second] == sorted(first):
                _rename(part, node.output[0], before.input[0])


def fold_constants(graph: onnx.GraphProto, opset: int) -> None:
    """Compute what depends on constants alone, and keep it in the outermost graph."""
    # Constants of all graphs: names are unique in a converter's model.
    values = {}
    for part in all_graphs(graph):
        found = {t.name: numpy_helper.to_array(t) for t in part.initializer}
        del part.initializer[:]
        for node in [n for n in part.node if n.op_type == "Constant"]:
            (attribute,) = node.attribute
            found[node.output[0]] = numpy_helper.to_array(attribute.t)
            part.node.remove(node)
        for output in part.output:
            # A graph's output must be a node's.
            if output.name in found:
                found[f"{output.name}_constant"] = found.pop(output.name)
                part.node.append(
                    helper.make_node("Identity", [f"{output.name}_constant"], [output.name])
                )
        values.update(found)
    for part in all_graphs(graph):
        outputs = {output.name for output in part.output}
        for node in list(part.node):
            known = all(name in values for name in node.input if name)
            if not known or subgraphs(node) or outputs & set(node.output) or not node.input:
                continue
            feeds = {name: values[name] for name in node.input if name}
            results = _evaluate(node, feeds, opset)
            values.update(zip(node.output, results, strict=True))
            part.node.remove(node)
    _store(graph, values)


def _evaluate(node, feeds: dict[str, np.ndarray], opset: int) -> list[np.ndarray]:
    """Compute the outputs of one node."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "node", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feeds)]


def _store(graph: onnx.GraphProto, values: dict[str, np.ndarray]) -> None:
    """Put the constants that are read into a graph, equal ones once."""
    used = used_names(graph)
    kept: dict[tuple, str] = {}
    for name, value in values.items():
        if name not in used:
            continue
        key = (str(value.dtype), value.shape, value.tobytes())
        if key in kept and not any(o.name == name for p in all_graphs(graph) for o in p.output):
            _rename(graph, name, kept[key])
            continue
        kept.setdefault(key, name)
        graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        )


def used_names(graph: onnx.GraphProto) -> Counter:
    """Count how often each name is read, in a graph and in those inside it."""
    return Counter(
        name
        for part in all_graphs(graph)
        for names in (*(node.input for node in part.node), [o.name for o in part.output])
        for name in names
    )


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes that nothing reads."""
    while True:
        used = used_names(graph)
        unused = [
            (part, node)
            for part in all_graphs(graph)
            for node in part.node
            if not any(used[name] for name in node.output)
        ]
        if not unused:
            return
        for part, node in unused:
            part.node.remove(node)


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Count the operators of a graph with its functions written out, the most frequent first."""
    functions = {function.name: function for function in model.functions}

    def count(nodes) -> Counter:
        found = Counter()
        for node in nodes:
            if node.domain == DOMAIN:
                found += count(functions[node.op_type].node)
            else:
                found[node.op_type] += 1
            for inner in subgraphs(node):
                found += count(inner.node)
        return found

    return dict(count(model.graph.node).most_common())
