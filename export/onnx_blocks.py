"""One block as an ONNX graph, its weights among the inputs: blocks alike are converted once."""

from typing import NamedTuple

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

import keras_iterconv as ki
from keras_iterconv.unrolling import Update

from .onnx_graph import make_function, simplify

OPSET = 18


class BlockCall(NamedTuple):
    """A block in the graph around it.

    Attributes:
        function: The name of the function from u, max_unroll, the threshold where it has one, and
            the weights, to state, depth and status.
        weights: Its weights, float32.
    """

    function: str
    weights: list[np.ndarray]


def has_channels_first(block: ki.IteratedBlock) -> bool:
    """Say whether a block's graph takes and gives `[N, channels, height, width]`.

    ONNX has its convolutions so; in the usual layout each update would hold two transposes.
    """
    return isinstance(block, ki.NAISConv2D)


def to_channels_first(images: tf.Tensor) -> tf.Tensor:
    """Transpose `[N, height, width, channels]`."""
    return tf.transpose(images, [0, 3, 1, 2])


def to_channels_last(images: tf.Tensor) -> tf.Tensor:
    """Transpose `[N, channels, height, width]`."""
    return tf.transpose(images, [0, 2, 3, 1])


class BlockConverter:
    """Converts blocks to functions, those of one kind to one.

    Attributes:
        functions: What it has made, by kind.
    """

    def __init__(self):
        self.functions = {}

    def convert(self, block: ki.IteratedBlock, input_shape) -> BlockCall:
        """Convert a block.

        Args:
            block: In float32.
            input_shape: Of u, in the usual layout, without the batch.
        """
        u = tf.zeros([1, *input_shape])
        update = block.make_update(u)
        weights = [operand for operand in update.operands if operand is not u]
        weights = [_to_onnx(weight, has_channels_first(block)) for weight in weights]
        bare = update._replace(weights=(), drives=(), sources=())
        shapes = tuple(tuple(weight.shape) for weight in weights)
        kind = (
            bare,
            shapes,
            tuple(input_shape),
            block.threshold is None,
            block.solver,
            block.initial_state,
        )
        if kind not in self.functions:
            graph = _convert(block, input_shape, shapes)
            simplify(graph, OPSET)
            name = f"{type(block).__name__}{len(self.functions) + 1}"
            self.functions[kind] = make_function(graph, name, OPSET)
        return BlockCall(
            self.functions[kind].name,
            [weight.numpy() for weight in weights],
        )


def _to_onnx(weight: tf.Tensor, channels_first: bool) -> tf.Tensor:
    """Transpose a kernel `[..., height, width, in, out]` to the order of ONNX, out first."""
    rank = weight.shape.rank
    if not channels_first or rank < 4:
        return weight
    return tf.transpose(weight, [*range(rank - 4), rank - 1, rank - 2, rank - 4, rank - 3])


def _from_onnx(weight: tf.Tensor) -> tf.Tensor:
    """Undo it, where it was done; a transpose of the converter's own undoes this."""
    return tf.transpose(weight, [2, 3, 1, 0]) if weight.shape.rank == 4 else weight


class _Stack:
    """Stacked weights whose kernels are transposed as they are taken."""

    def __init__(self, weights):
        self.weights = weights

    def __getitem__(self, k):
        return _from_onnx(self.weights[k])


def _with_kernels_of_onnx(update: Update) -> Update:
    """Return a convolutional update whose kernels come as ONNX has them."""
    transfer, drive = update.transfer, update.drive

    def transpose_then_transfer(state, k, weights, drives):
        return transfer(
            state, k, [(_from_onnx if update.tied else _Stack)(w) for w in weights], drives
        )

    def transpose_then_drive(inputs, *weights):
        return drive(inputs, *map(_from_onnx, weights))

    return update._replace(transfer=transpose_then_transfer, drive=drive and transpose_then_drive)


def _convert(block, input_shape, shapes) -> onnx.GraphProto:
    channels_first, adaptive = has_channels_first(block), block.threshold is not None

    def run(u, max_unroll, *operands):
        threshold, *weights = operands if adaptive else (0.0, *operands)
        if channels_first:
            update = block.make_update(u, "NCHW")
            state = to_channels_first(block.make_initial_state(to_channels_last(u)))
        else:
            update, state = block.make_update(u), block.make_initial_state(u)
        rest = iter(weights)
        update = update.with_operands(
            [u if operand is u else next(rest) for operand in update.operands]
        )
        if channels_first:
            update = _with_kernels_of_onnx(update)
        unrolled = block.unroll(update, state, max_unroll, threshold)
        return tuple(unrolled)

    height_width, channels = input_shape[:-1], input_shape[-1]
    shape = (channels, *height_width) if channels_first else tuple(input_shape)
    signature = [
        tf.TensorSpec((None, *shape), tf.float32, "u"),
        tf.TensorSpec((), tf.int32, "max_unroll"),
        *([tf.TensorSpec((), tf.float32, "threshold")] if adaptive else []),
        *(tf.TensorSpec(s, tf.float32, f"weight{i}") for i, s in enumerate(shapes)),
    ]
    return _convert_graph(run, signature)


def _convert_graph(function, signature) -> onnx.GraphProto:
    """Convert a function of tensors that reads no variables; both keep the function's order.

    Not by `tf2onnx.convert.from_function`: it makes up names for the functions of loops, which
    collide in the next conversion of a process.
    """
    function = tf.function(function, input_signature=signature, autograph=False)
    graph = function.get_concrete_function().graph
    definition = graph.as_graph_def(add_shapes=True)
    for nodes in (definition.node, *(f.node_def for f in definition.library.function)):
        for node in nodes:
            # Else TensorFlow may take loops and branches apart, and the converter knows them whole.
            if "_lower_using_switch_merge" in node.attr:
                node.attr["_lower_using_switch_merge"].b = False
    model, _ = tf2onnx.convert.from_graph_def(
        definition,
        input_names=[tensor.name for tensor in graph.inputs],
        output_names=[tensor.name for tensor in graph.outputs],
        opset=OPSET,
        custom_op_handlers={
            "EuclideanNorm": (_convert_norm, []),
            "Where": (_convert_places, []),
        },
    )
    return model.graph


def _convert_norm(context, node, name, arguments) -> None:
    """Convert the 2-norm, which the converter does not know."""
    axes = np.asarray(node.inputs[1].get_tensor_value(as_list=False), np.int64).reshape(-1)
    axes = context.make_const(tf2onnx.utils.make_name("axes"), axes).output[0]
    options = {
        "attr": {"keepdims": int(node.get_attr_value("keep_dims"))},
        "name": name,
        "outputs": node.output,
        "shapes": node.output_shapes,
        "dtypes": node.output_dtypes,
    }
    source = node.input[0]
    context.remove_node(node.name)
    context.make_node("ReduceL2", [source, axes], **options)


def _convert_places(context, node, name, arguments) -> None:
    """Convert the places where a mask `[n]` is true, `[m, 1]`; ONNX has them as `[1, m]`."""
    column = context.make_const(tf2onnx.utils.make_name("column"), np.array([-1, 1])).output[0]
    source, shapes, dtypes, outputs = (
        node.input[0],
        node.output_shapes,
        node.output_dtypes,
        node.output,
    )
    context.remove_node(node.name)
    row = context.make_node("NonZero", [source]).output[0]
    # The converter's own transpose would be one in each iteration.
    context.make_node(
        "Reshape", [row, column], name=name, outputs=outputs, shapes=shapes, dtypes=dtypes
    )
