"""One block as an ONNX graph: blocks alike are converted once."""

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import helper, numpy_helper

from keras_iterconv.exporting.onnx_graph import place_constants, simplify
from keras_iterconv.exporting.onnx_loops import make_loop
from keras_iterconv.layers import IteratedBlock, NAISConv2D
from keras_iterconv.unrolling import Update

OPSET = 18


def has_channels_first(block: IteratedBlock) -> bool:
    """Say whether a block's graph takes and gives `[N, channels, height, width]`.

    ONNX has its convolutions so; in the usual layout each update would hold two transposes.
    """
    return isinstance(block, NAISConv2D)


def to_channels_first(images: tf.Tensor) -> tf.Tensor:
    """Transpose `[N, height, width, channels]`."""
    return tf.transpose(images, [0, 3, 1, 2])


def to_channels_last(images: tf.Tensor) -> tf.Tensor:
    """Transpose `[N, channels, height, width]`."""
    return tf.transpose(images, [0, 2, 3, 1])


class BlockConverter:
    """Converts blocks, those of one kind once."""

    def __init__(self):
        self._graphs = {}

    def convert(self, block: IteratedBlock, input_shape) -> onnx.GraphProto:
        """Return the graph of a block.

        Args:
            block: In float32.
            input_shape: Of u, in the usual layout, without the batch.

        Returns:
            A graph from u, max_unroll and, where the block has one, the threshold to state, depth
            and status; its weights are initializers.

        Raises:
            ValueError: It looks for its settled state by Anderson acceleration.
        """
        if block.solver != "picard":
            raise ValueError(
                f"The solver {block.solver!r} of {block.name!r} is not written to ONNX. Publish "
                'the format saved_model alone, or give the block `solver="picard"`: where both '
                "settle, they settle in one state"
            )
        u = tf.zeros([1, *input_shape])
        update = block.build_update(u)
        weights = [operand for operand in update.tensors if operand is not u]
        weights = [_to_onnx(weight, has_channels_first(block)) for weight in weights]
        bare = update._replace(weights=(), drives=(), drive_inputs=())
        shapes = tuple(tuple(weight.shape) for weight in weights)
        kind = (
            bare,
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
        place_constants(graph)
        return graph


def _name(number: int) -> str:
    """Name one of a block's weights."""
    return f"weight{number}"


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
    transfer, drive = update.transfer, update.make_drives

    def transpose_then_transfer(state, k, weights, drives):
        return transfer(
            state, k, [(_from_onnx if update.tied else _Stack)(w) for w in weights], drives
        )

    def transpose_then_drive(inputs, *weights):
        return drive(inputs, *map(_from_onnx, weights))

    return update._replace(
        transfer=transpose_then_transfer, make_drives=drive and transpose_then_drive
    )


def _convert(block: IteratedBlock, input_shape: tuple, shapes: tuple) -> onnx.GraphProto:
    """Convert a block, its weights the last inputs."""
    layout = "NCHW" if has_channels_first(block) else "NHWC"
    if layout == "NCHW":
        input_shape = (input_shape[-1], *input_shape[:-1])
    u = tf.TensorSpec((None, *input_shape), tf.float32, "u")
    weights = [tf.TensorSpec(shape, tf.float32, _name(n)) for n, shape in enumerate(shapes)]

    def start(u, weights):
        if layout == "NHWC":
            update, state = block.build_update(u), block.make_initial_state(u)
        else:
            update = _with_kernels_of_onnx(block.build_update(u, layout))
            state = to_channels_first(block.make_initial_state(to_channels_last(u)))
        rest = iter(weights)
        tensors = [u if tensor is u else next(rest) for tensor in update.tensors]
        return update.with_tensors(tensors), state

    graph = make_loop(
        _convert_parts(block, start, u, weights), len(u.shape), block.threshold is not None
    )
    simplify(graph)
    return graph


def _convert_parts(block, start, u, weights) -> dict[str, onnx.GraphProto]:
    """Convert what a loop's template wants: x(0) and the drive, and one update."""

    def start_loop(u, *weights):
        update, state = start(u, weights)
        # A drive also where the state has none, for there to be one kind of loop.
        return (state, *(update.with_drives().drives or (u,)))

    def change(x, k, drive, *weights):
        update, _ = start(tf.zeros([1, *u.shape[1:]]), weights)
        drives = (drive,) if update.make_drives or update.drives else ()
        update = update._replace(drives=drives, make_drives=None, drive_inputs=())
        return update.change(update.value(x, tf.cast(k, tf.int32)), x.dtype)

    made = tf.function(start_loop, input_signature=[u, *weights], autograph=False)
    state, drive = made.get_concrete_function().structured_outputs
    x, drive = (tf.TensorSpec(t.shape, t.dtype, n) for t, n in ((state, "x"), (drive, "drive")))
    k = tf.TensorSpec((), tf.int64, "k")
    return {
        "Start": _convert_graph(start_loop, [u, *weights]),
        "Update": _convert_graph(change, [x, k, drive, *weights]),
    }


def _convert_graph(function, signature) -> onnx.GraphProto:
    """Convert a function of tensors that reads no variables; both keep the function's order."""
    function = tf.function(function, input_signature=signature, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
    # The converter leaves out what the function does not read.
    del model.graph.input[:]
    for spec in signature:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype.as_numpy_dtype))
        model.graph.input.append(helper.make_tensor_value_info(spec.name, kind, spec.shape))
    return model.graph
