"""Conversion of NAIS blocks to ONNX graphs; blocks with equal graphs are converted once."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import onnx
import tensorflow as tf
from onnx import numpy_helper

from keras_iterconv.exporting.onnx_graph import fold_constants, place_constants, simplify
from keras_iterconv.exporting.onnx_iterate import convert_iterate
from keras_iterconv.exporting.onnx_loops import make_loop
from keras_iterconv.exporting.onnx_parts import convert_graph
from keras_iterconv.layers import IteratedBlock
from keras_iterconv.unrolling import BoundUpdate, EulerUpdate
from keras_iterconv.unrolling.samples import sample_norms


def to_channels_first(images: tf.Tensor) -> tf.Tensor:
    """Return images `[N, height, width, channels]` as `[N, channels, height, width]`."""
    return tf.transpose(images, [0, 3, 1, 2])


def to_channels_last(images: tf.Tensor) -> tf.Tensor:
    """Return images `[N, channels, height, width]` as `[N, height, width, channels]`."""
    return tf.transpose(images, [0, 2, 3, 1])


class BlockConverter:
    """Converter of blocks that converts blocks with equal graphs once."""

    def __init__(self):
        self._graphs = {}

    def convert(self, block: Any, inputs: Any) -> onnx.GraphProto:
        """Return the graph of a block.

        Args:
            block: An `IteratedBlock` or `Iterate` in float32.
            inputs: Its inputs, a symbolic tensor or a structure of them, channels last.

        Returns:
            A graph from u, max_unroll and, for adaptive depth, the threshold to state, depth and
            status; its weights are initializers.

        Raises:
            ValueError: The block's solver is Anderson acceleration, or its update has drives that
                the graph cannot compute.
        """
        if not block.adds_change:
            return convert_iterate(block, inputs)
        input_shape = inputs.shape[1:]
        if block.solver != "picard":
            raise ValueError(
                f"The solver {block.solver!r} of {block.name!r} cannot be exported to ONNX. "
                'Publish the format saved_model alone, or build the block with `solver="picard"`; '
                "where both converge, they converge to the same state"
            )
        u = tf.zeros([1, *(size or 1 for size in input_shape)])
        update = block.build_update(u)
        _check_drives(block, update, u)
        weights = [operand for operand in update.tensors if operand is not u]
        weights = [
            tf.cast(_to_onnx(weight, block.channels_first), tf.float32) for weight in weights
        ]
        shapes = tuple(tuple(weight.shape) for weight in weights)
        kind = (
            update.update,
            shapes,
            tuple(input_shape),
            block.threshold is None,
            block.initial_state,
        )
        if kind not in self._graphs:
            self._graphs[kind] = _convert(block, tuple(input_shape), shapes)
        graph = onnx.GraphProto()
        graph.CopyFrom(self._graphs[kind])
        del graph.input[-len(weights) :]
        for number, weight in enumerate(weights):
            graph.initializer.append(numpy_helper.from_array(weight.numpy(), _name(number)))
        fold_constants(graph)
        place_constants(graph)
        return graph


def _check_drives(block: IteratedBlock, update: BoundUpdate, u: tf.Tensor) -> None:
    """Raise `ValueError` where what depends on the inputs u is anything but u or one drive of it.

    All other tensors of an update become constants of the file.
    """
    of_inputs = (*update.drives, *update.drive_inputs[:1])
    if any(tensor is not u for tensor in of_inputs) or len(update.with_drives().drives) > 1:
        raise ValueError(
            f"{block.name!r} cannot be exported to ONNX: `build_update` must pass on its inputs "
            "unchanged, as the only drive or as the first of `drive_inputs`, from which the "
            "`make_drives` of its update may compute one drive. Received: "
            f"{len(update.drives)} drives and {len(update.drive_inputs)} drive inputs"
        )


def _name(number: int) -> str:
    """Return the name of a block's weight in the graph."""
    return f"weight{number}"


def _to_onnx(weight: tf.Tensor, channels_first: bool) -> tf.Tensor:
    """Return a kernel `[..., height, width, in, out]` in the order of ONNX, out first."""
    rank = weight.shape.rank
    if not channels_first or rank < 4:
        return weight
    return tf.transpose(weight, [*range(rank - 4), rank - 1, rank - 2, rank - 4, rank - 3])


def _from_onnx(weight: tf.Tensor) -> tf.Tensor:
    """Return a kernel in the order of Keras; a transpose of the converter cancels this one."""
    return tf.transpose(weight, [2, 3, 1, 0]) if weight.shape.rank == 4 else weight


class _Stack:
    """Stacked weights that transposes the kernel of each update when it is indexed."""

    def __init__(self, weights):
        self.weights = weights

    def __getitem__(self, k):
        return _from_onnx(self.weights[k])


def _with_kernels_of_onnx(bound: BoundUpdate) -> BoundUpdate:
    """Return a convolutional update that takes its kernels in the order of ONNX."""
    update = cast(EulerUpdate, bound.update)
    transfer, drive = update.transfer, update.make_drives

    def transpose_then_transfer(state, k, weights, drives):
        return transfer(
            state, k, [(_from_onnx if update.tied else _Stack)(w) for w in weights], drives
        )

    def transpose_then_drive(inputs, *weights):
        return cast(Callable, drive)(inputs, *map(_from_onnx, weights))

    changed = dataclasses.replace(
        update, transfer=transpose_then_transfer, make_drives=drive and transpose_then_drive
    )
    return bound._replace(update=changed)


def _convert(block: IteratedBlock, input_shape: tuple, shapes: tuple) -> onnx.GraphProto:
    """Return the graph of a block whose last inputs are its weights."""
    layout = "NCHW" if block.channels_first else "NHWC"
    if layout == "NCHW":
        input_shape = (input_shape[-1], *input_shape[:-1])
    u = tf.TensorSpec((None, *input_shape), tf.float32, "u")
    weights = [tf.TensorSpec(shape, tf.float32, _name(n)) for n, shape in enumerate(shapes)]

    def start(u, weights):
        if layout == "NHWC":
            update, state = block.build_update(u), block.make_initial_state(u)
        else:
            build: Callable[..., BoundUpdate] = block.build_update
            update = _with_kernels_of_onnx(build(u, layout))
            state = to_channels_first(block.make_initial_state(to_channels_last(u)))
        rest = iter(weights)
        tensors = [u if tensor is u else next(rest) for tensor in update.tensors]
        return update.with_tensors(tensors), state

    graph = _convert_loop(start, u, weights, block.threshold is not None)
    simplify(graph)
    return graph


def _convert_loop(
    start: Any, u: tf.TensorSpec, weights: Sequence[tf.TensorSpec], adaptive: bool
) -> onnx.GraphProto:
    """Return the graph of a block from a function that gives its update and x(0)."""

    def start_loop(u, *weights):
        update, state = start(u, weights)
        return (state, *update.with_drives().drives)

    def step(x, k, *rest):
        drives, rest = rest[:drive_count], rest[drive_count:]
        bound, weights = (rest[0], rest[1:]) if adaptive else (None, rest)
        update, _ = start(tf.zeros([1, *(size or 1 for size in u.shape[1:])]), weights)
        update = update._replace(drives=drives, drive_inputs=())
        new, change = update.step(x, tf.cast(k, tf.int32))
        return (new, sample_norms(change) - bound) if adaptive else new

    made = tf.function(start_loop, input_signature=[u, *weights], autograph=False)
    state, *drives = made.get_concrete_function().structured_outputs
    drive_count = len(drives)
    specs = {
        "inputs": [u],
        "state": [tf.TensorSpec(state.shape, state.dtype, "x")],
        "drives": [tf.TensorSpec(z.shape, z.dtype, f"drive{n}") for n, z in enumerate(drives)],
        "memory": [],
    }
    k, bound = tf.TensorSpec((), tf.int64, "k"), tf.TensorSpec((), tf.float32, "bound")
    signature = [*specs["state"], k, *specs["drives"], *([bound] if adaptive else []), *weights]
    start_graph = convert_graph(start_loop, [u, *weights])
    return make_loop(start_graph, convert_graph(step, signature), specs, adaptive)
