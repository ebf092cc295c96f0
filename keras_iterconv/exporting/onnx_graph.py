"""Editing of ONNX graphs: inlining, sorting, placing constants, and simplifying.

A name denotes one value in a graph and all of its inner graphs.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import TopologicalSorter

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# Constants of at most so many values are copied to each graph that reads them.
_LARGEST_COPIED = 16


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the inner graphs of a node: the body of a loop, or two branches."""
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all of its inner graphs, the outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the constants of a model, including those of inner graphs."""
    for graph in all_graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            yield from (part.t for part in node.attribute if part.HasField("t"))


def inline(graph: onnx.GraphProto, operator: str, inner: onnx.GraphProto) -> None:
    """Replace all nodes of an operator by a graph, in a graph and its inner graphs.

    Args:
        graph: Graph with these nodes. Inputs of `inner` beyond those of the nodes become inputs of
            it.
        operator: Operator of the nodes; also the prefix of the inlined names, with the number of
            the node from the second node on.
        inner: Graph to inline.
    """
    prefixes = (operator if n == 0 else f"{operator}:{n}" for n in itertools.count())
    # Inner graphs first: writing the nodes of a graph copies their inner graphs.
    for part in reversed(list(all_graphs(graph))):
        for place, node in reversed(list(enumerate(part.node))):
            if node.op_type != operator:
                continue
            given, free = inner.input[: len(node.input)], inner.input[len(node.input) :]
            names = dict(zip((value.name for value in given), node.input, strict=True))
            names |= {value.name: value.name for value in free}
            names |= dict(zip((value.name for value in inner.output), node.output, strict=True))
            copy = onnx.GraphProto()
            copy.CopyFrom(inner)
            _rename_all(copy, functools.partial(_renamed, names, next(prefixes)))
            known = {value.name for value in graph.input}
            graph.input.extend(value for value in free if value.name not in known)
            part.initializer.extend(copy.initializer)
            nodes = list(part.node)
            del part.node[:]
            part.node.extend([*nodes[:place], *copy.node, *nodes[place + 1 :]])


def _renamed(names: Mapping[str, str], prefix: str, name: str) -> str:
    return names.get(name, f"{prefix}/{name}")


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Sort the nodes of a graph so that each follows those whose outputs it reads."""
    made_by = {name: place for place, node in enumerate(graph.node) for name in node.output}
    reads = {
        place: {made_by[name] for name in _read_by(node) if name in made_by}
        for place, node in enumerate(graph.node)
    }
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[place] for place in TopologicalSorter(reads).static_order())


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node or its inner graphs read."""
    return {*node.input, *(name for inner in subgraphs(node) for name in used_names(inner))}


def place_constants(graph: onnx.GraphProto) -> None:
    """Store each constant once, and let each graph that reads it have it as a constant of its own.

    A constant lies in the innermost graph that contains all of its readers. Readers in other graphs
    have it by a reshape to its own shape, which ONNX Runtime evaluates when it loads the file: it
    uses its fast convolutions only for kernels that are constants of the same graph. Small
    constants are copied instead.
    """
    constants: dict[tuple, onnx.TensorProto] = {}
    renamed: dict[str, str] = {}
    for part in all_graphs(graph):
        for constant in part.initializer:
            value = numpy_helper.to_array(constant)
            content = (value.dtype, value.shape, value.tobytes())
            if content not in constants:
                constants[content] = onnx.TensorProto()
                constants[content].CopyFrom(constant)
            renamed[constant.name] = constants[content].name
        del part.initializer[:]
    for part in all_graphs(graph):
        for node in part.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
    for constant in constants.values():
        _place(graph, constant)


def _place(graph: onnx.GraphProto, constant: onnx.TensorProto) -> None:
    """Add a constant to the graph, or to an inner graph, that contains all of its readers."""
    name, small = constant.name, np.prod(constant.dims) <= _LARGEST_COPIED
    home = graph if small else _home(graph, name)
    readers = [part for part in all_graphs(home) if any(name in node.input for node in part.node)]
    if not small:
        home.initializer.append(constant)
    for number, part in enumerate(readers):
        if part is home and not small:
            continue
        local = f"{name}:{number}" if number or not small else name
        for node in part.node:
            node.input[:] = [local if read == name else read for read in node.input]
        if small:
            part.initializer.append(constant)
            part.initializer[-1].name = local
            continue
        shape = numpy_helper.from_array(np.array(constant.dims, np.int64), f"{local}/shape")
        part.initializer.append(shape)
        nodes = [helper.make_node("Reshape", [name, shape.name], [local]), *part.node]
        del part.node[:]
        part.node.extend(nodes)


def _home(graph: onnx.GraphProto, name: str) -> onnx.GraphProto:
    """Return the innermost graph that contains all nodes that read a value."""
    readers = [node for node in graph.node if name in _read_by(node)]
    if any(name in node.input for node in readers):
        return graph
    inside = [part for node in readers for part in subgraphs(node) if used_names(part)[name]]
    return _home(inside[0], name) if len(inside) == 1 else graph


def fold_constants(graph: onnx.GraphProto) -> None:
    """Replace the nodes that read only constants by their values, in a graph and its inner graphs.

    The converter changes the layout of some kernels. Unless that is done here, a loop does it in
    each update.
    """
    constants: dict[str, onnx.TensorProto] = {}
    # The outer graphs come first: inner ones also read their constants.
    for part in all_graphs(graph):
        constants |= {constant.name: constant for constant in part.initializer}
        outputs = {output.name for output in part.output}
        for node in list(part.node):
            folds = node.input and all(name in constants for name in node.input)
            # The inner graphs of a node read values that are not among its inputs.
            folds = folds and not subgraphs(node) and len(node.output) == 1
            if not folds or node.output[0] in outputs:
                continue
            values = {name: numpy_helper.to_array(constants[name]) for name in node.input}
            (value,) = ReferenceEvaluator(node).run(None, values)
            folded = numpy_helper.from_array(np.asarray(value), node.output[0])
            constants[folded.name] = folded
            part.initializer.append(folded)
            part.node.remove(node)
    used = used_names(graph)
    for part in all_graphs(graph):
        for constant in list(part.initializer):
            if not used[constant.name]:
                part.initializer.remove(constant)


def simplify(graph: onnx.GraphProto) -> None:
    """Remove identities, pairs of inverse transposes, unused nodes and long names."""
    for part in all_graphs(graph):
        del part.value_info[:]
    remove_identities(graph)
    cancel_transposes(graph)
    remove_identities(graph)
    remove_unused(graph)
    _shorten_names(graph)


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Replace the names of inner values by numbers.

    The names of the converter can take more bytes than small weights.
    """
    outside = {value.name for value in (*graph.input, *graph.output)}
    numbers = (str(number) for number in itertools.count())
    names = {name: name for name in outside}

    def rename(name):
        if name not in names:
            names[name] = next(number for number in numbers if number not in outside)
        return names[name]

    _rename_all(graph, rename)


def _rename_all(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    """Rename all values, and remove the names of nodes."""
    for part in all_graphs(graph):
        # A graph must have a name.
        part.name, part.doc_string = "g", ""
        for node in part.node:
            node.name = node.doc_string = ""
            node.input[:] = [name and rename(name) for name in node.input]
            node.output[:] = [name and rename(name) for name in node.output]
        for value in (*part.input, *part.output, *part.initializer):
            value.name = rename(value.name)


def rename_outputs(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Rename the outputs of a graph, in their order."""
    for output, name in zip(graph.output, names, strict=True):
        graph.node.append(helper.make_node("Identity", [output.name], [name]))
        output.name = name


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value where a graph or its inner graphs read it."""
    for part in all_graphs(graph):
        for node in part.node:
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new
        for output in part.output:
            if output.name == old:
                # A graph's output must be computed in the graph itself.
                part.node.append(helper.make_node("Identity", [new], [old]))


def remove_identities(graph: onnx.GraphProto) -> None:
    """Remove the nodes that only copy a value to another name."""
    for part in all_graphs(graph):
        outputs = {output.name for output in part.output}
        for node in list(part.node):
            if node.op_type == "Identity" and node.output[0] not in outputs:
                part.node.remove(node)
                _rename(part, node.output[0], node.input[0])


def cancel_transposes(graph: onnx.GraphProto) -> None:
    """Replace a transpose that inverts another one by an identity, also across inner graphs."""
    made_by = {node.output[0]: node for part in all_graphs(graph) for node in part.node}
    for part in all_graphs(graph):
        for node in part.node:
            before = made_by.get(node.input[0]) if node.op_type == "Transpose" else None
            if before is None or before.op_type != "Transpose":
                continue
            first, second = (list(n.attribute[0].ints) for n in (before, node))
            if [first[axis] for axis in second] == sorted(first):
                node.op_type, node.input[0] = "Identity", before.input[0]
                del node.attribute[:]


def used_names(graph: onnx.GraphProto) -> Counter:
    """Return the number of reads of each name, in a graph and its inner graphs."""
    return Counter(
        name
        for part in all_graphs(graph)
        for names in (*(node.input for node in part.node), [o.name for o in part.output])
        for name in names
    )


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes whose outputs are not read."""
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
    """Return the counts of operators in a model, including inner graphs, largest first."""
    counted = Counter(node.op_type for part in all_graphs(model.graph) for node in part.node)
    return dict(counted.most_common())
