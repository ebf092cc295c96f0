"""Weights of ONNX models as 8-bit integers, which are multiplied by constant scales."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keras_iterconv.exporting.onnx_graph import all_graphs

# Operators that multiply weights, and those that hand on a part or another order of their first
# input, such as the kernel of update k. All other constants keep their values: a constant that
# divides or is compared may have any range.
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum")
_VIEWS = ("Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Transpose")
# Fewer values save less than the nodes take that compute them; and groups of fewer values save
# little over the scale and the outlier of each.
_FEWEST_VALUES = 512
_SMALLEST_GROUP = 32
_LARGEST_INT8 = 127
# Outliers take space: they are stored where the rounding error falls to less than this share.
_OUTLIER_GAIN = 0.25


class _Rounded(NamedTuple):
    """A tensor as integers and scales.

    Attributes:
        order: The order of the tensor's axes in which the groups lie one after the other.
        integers: int8 `[groups, values]`.
        scales: float32 `[groups, 1]`; a value is its integer times the scale of its group.
        places: int32 `[groups, 1]`, where the outlier of each group lies in it; None without.
        outliers: float32 `[groups, 1]`, the values there.
        error: The sum of the squared rounding errors.
    """

    order: tuple[int, ...]
    integers: np.ndarray
    scales: np.ndarray
    places: np.ndarray | None
    outliers: np.ndarray
    error: float


def round_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose weights are stored as 8-bit integers.

    A weight is an integer times the scale of its group, such as the kernel of one output channel.
    The kernel of a NAIS block has its centre near -1 among values below 0.03: where the largest
    value of each group is such an outlier, it is stored beside the integers as it is. The model
    computes in float32, from the same inputs to the same outputs. Its scales are constants, so the
    results of a sample do not depend on its batch.

    The nodes that compute a weight lie in the graph that had it, also within a loop, and read
    constants alone: ONNX Runtime evaluates them when it loads the file, and chooses its convolution
    for a constant kernel as before.

    Args:
        model: A model of opset 13 or later in float32. Constants stay as they are unless
            convolutions and matrix products alone read them, and if they are small or not finite.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    parts = list(all_graphs(rounded.graph))
    kept = {value.name for part in parts for value in (*part.input, *part.output)}
    readers: dict[str, list] = {}
    for part in parts:
        for node in part.node:
            for place, name in enumerate(node.input):
                readers.setdefault(name, []).append((node.op_type, place, node.output))
    # Inner graphs first: writing the nodes of a graph copies their inner graphs.
    for part in reversed(parts):
        nodes = []
        for constant in list(part.initializer):
            if constant.name not in kept and _is_weight(constant.name, readers, kept):
                found = _round(numpy_helper.to_array(constant))
                if found is not None:
                    nodes += _write(part, constant, found)
        if nodes:
            nodes += part.node
            del part.node[:]
            part.node.extend(nodes)
    onnx.checker.check_model(rounded, full_check=True)
    return rounded


def _is_weight(name: str, readers: dict[str, list], kept: set[str]) -> bool:
    """Return whether products alone read a value, directly or parts of it."""
    found = readers.get(name, [])
    return bool(found) and all(
        kind in _PRODUCTS
        or (
            kind in _VIEWS
            and place == 0
            and outputs[0] not in kept
            and _is_weight(outputs[0], readers, kept)
        )
        for kind, place, outputs in found
    )


def _round(values: np.ndarray) -> _Rounded | None:
    """Return a tensor in the groups of the least rounding error; None for one to be left as is."""
    large = values.dtype == np.float32 and values.size >= _FEWEST_VALUES
    if not (large and np.isfinite(values).all()):
        return None
    plain, with_outliers = (
        min(
            (
                _round_groups(values, order, leading, outliers)
                for order, leading in _groups(values.shape)
            ),
            key=lambda found: found.error,
            default=None,
        )
        for outliers in (False, True)
    )
    if plain is None or with_outliers is None:
        return None
    return with_outliers if with_outliers.error < _OUTLIER_GAIN * plain.error else plain


def _groups(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the ways to cut a tensor into groups: the axes in order, and how many count groups."""
    rank = len(shape)
    for leading in range(1, rank):
        if np.prod(shape[leading:]) >= _SMALLEST_GROUP:
            yield tuple(range(rank)), leading
    # A kernel of a dense layer has its outputs last.
    if rank > 1 and shape[-2] >= _SMALLEST_GROUP:
        yield (*range(rank - 2), rank - 1, rank - 2), rank - 1


def _round_groups(
    values: np.ndarray, order: tuple[int, ...], leading: int, with_outliers: bool
) -> _Rounded:
    ordered = values.transpose(order)
    groups = ordered.reshape(int(np.prod(ordered.shape[:leading])), -1)
    places = np.abs(groups).argmax(axis=1)[:, np.newaxis].astype(np.int32)
    outliers = np.take_along_axis(groups, places, axis=1)
    rest = groups.copy()
    if with_outliers:
        np.put_along_axis(rest, places, 0, axis=1)
    scales = np.abs(rest).max(axis=1, keepdims=True) / np.float32(_LARGEST_INT8)
    # Of zeros, and of values so small that their scale is none.
    scales[scales < np.finfo(np.float32).tiny] = 1
    integers = np.round(rest / scales).astype(np.int8)
    error = float(np.sum(np.square(integers * scales - rest, dtype=np.float64)))
    return _Rounded(order, integers, scales, places if with_outliers else None, outliers, error)


def _write(
    graph: onnx.GraphProto, constant: onnx.TensorProto, found: _Rounded
) -> list[onnx.NodeProto]:
    """Replace a constant of a graph by integers, and return the nodes that compute it."""
    name, shape = constant.name, tuple(constant.dims)
    graph.initializer.remove(constant)
    nodes: list[onnx.NodeProto] = []

    def keep(tag: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}/{tag}"))
        return f"{name}/{tag}"

    def compute(operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{name}/{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    # Not `DequantizeLinear`: ONNX Runtime does not evaluate it when it loads a file, and would
    # compute the weight in each update.
    value = compute("Cast", [keep("int8", found.integers)], to=TensorProto.FLOAT)
    value = compute("Mul", [value, keep("scale", found.scales)])
    if found.places is not None:
        places, outliers = keep("place", found.places), keep("outlier", found.outliers)
        value = compute("ScatterElements", [value, places, outliers], axis=1)
    ordered = [shape[axis] for axis in found.order]
    if len(shape) > 2:
        value = compute("Reshape", [value, keep("shape", np.array(ordered, np.int64))])
    if list(found.order) != sorted(found.order):
        compute("Transpose", [value], perm=np.argsort(found.order).tolist())
    nodes[-1].output[0] = name
    return nodes
