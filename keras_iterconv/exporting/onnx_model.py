"""Conversion of models to ONNX, with loops of adaptive depth."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from keras_iterconv._support.private_keras import layers_within, mask_of, set_mask
from keras_iterconv.exporting.exported_function import MAX_UNROLL, THRESHOLD, ExportedFunction
from keras_iterconv.exporting.image_classifier import ImageClassifier
from keras_iterconv.exporting.onnx_blocks import (
    BlockConverter,
    to_channels_first,
    to_channels_last,
)
from keras_iterconv.exporting.onnx_graph import (
    all_graphs,
    inline,
    remove_identities,
    rename_outputs,
    simplify,
    sort_nodes,
)
from keras_iterconv.exporting.onnx_parts import convert_model
from keras_iterconv.layers.protocol import is_block
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS, Task
from keras_iterconv.unrolling import Unrolled

# The oldest version of the format that supports opset 18, for older runtimes.
IR_VERSION = 8


class _CutCall(NamedTuple):
    """The call of an adjustable block, which is cut out of the graph around it.

    Attributes:
        block: The block that runs in the file.
        original: The block of the model.
        inputs: Its inputs, symbolic tensors in their structure, with their mask.
        state: Its outputs, symbolic tensors in their structure.
    """

    block: Any
    original: Any
    inputs: Any
    state: Any

    @property
    def flat_inputs(self) -> list:
        """The inputs, and the mask if they carry one."""
        mask = mask_of(self.inputs)
        return [*_flat(self.inputs), *([] if mask is None else [mask])]


def to_onnx(
    model: keras.Model,
    preprocessing: Preprocessing,
    metadata: Mapping[str, str],
    task: Task = TASKS["classes"],
    inputs: str = "settable",
) -> onnx.ModelProto:
    """Return an image classifier as an ONNX model; see `convert_function`.

    Args:
        model: Model from standardised images to logits or probabilities.
        preprocessing: Standardisation of raw pixel values.
        metadata: Metadata of the file.
        task: Task of the model.
        inputs: How the depth is set; see `convert_function`.

    Raises:
        ValueError: The outputs are neither logits nor probabilities, or see `convert_function`.
    """
    classifier = ImageClassifier(model, preprocessing, task)
    return convert_function(ExportedFunction(model, classifier), metadata, inputs)


def convert_function(
    exported: ExportedFunction, metadata: Mapping[str, str], inputs: str = "settable"
) -> onnx.ModelProto:
    """Return the function of a file as an ONNX model.

    Args:
        exported: The function.
        metadata: Metadata of the file.
        inputs: `"settable"` for optional inputs that set the depth, with the model's settings as
            defaults; `"required"` for the same inputs without defaults; `"fixed"` for constants.

    Returns:
        A model of opset 18 with the inputs and outputs of the function. The inputs that set the
        depth are scalars.

    Raises:
        ValueError: A block's solver is Anderson acceleration, a block returns more than its state
            or has a block of adaptive depth in its update, or the model has an operation that ONNX
            has not.
    """
    _check_one_value_a_name(exported)
    for call in exported.calls:
        _check_convertible(call.block)
    with exported.as_exported():
        converted = _convert(exported, inputs)
    converted.ir_version = IR_VERSION
    converted.producer_name = "keras_iterconv"
    helper.set_model_props(converted, {**metadata, **exported.limits})
    _check_operators(converted)
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _convert(exported: ExportedFunction, inputs: str) -> onnx.ModelProto:
    calls = _cut_calls(exported)
    converted = _convert_around(exported, calls)
    graph, given, outputs = converted.graph, len(exported.inputs), len(exported.output_names)
    simplify(graph)
    ends = iter([value.name for value in graph.input[given:]])
    starts = iter([value.name for value in graph.output[outputs:]])
    del graph.input[given:], graph.output[outputs:]
    for spec in exported.depth_specs if inputs != "fixed" else ():
        kind = TensorProto.FLOAT if spec.dtype == tf.float32 else TensorProto.INT32
        graph.input.append(helper.make_tensor_value_info(spec.name, kind, spec.shape))
    for number, call in enumerate(calls):
        values = [next(starts) for _ in call.flat_inputs]
        if call.block.threshold is None:
            name = f"block{number}/{MAX_UNROLL}"
            values.append(_add_value(graph, name, np.int32(call.block.max_unroll)))
        else:
            names = exported.depth_names(call.original)
            values += [_limit_of(graph, number, call, names[MAX_UNROLL]), names[THRESHOLD]]
        results = [next(ends) for _ in [*_flat(call.state), "depth", "status"]]
        graph.node.append(helper.make_node(f"block{number}", values, results))
    sort_nodes(graph)
    converter = BlockConverter()
    for number, call in enumerate(calls):
        inline(graph, f"block{number}", converter.convert(call.block, call.inputs))
    remove_identities(graph)
    rename_outputs(graph, exported.output_names)
    _name_batch(graph, given)
    for each in exported.depth_inputs if inputs != "required" else ():
        # An initializer with the name of an input is its default.
        value = np.asarray(each.default, each.spec.dtype.as_numpy_dtype)
        _add_value(graph, each.spec.name, value)
    return converted


def _name_batch(graph: onnx.GraphProto, inputs: int) -> None:
    """Give the batch of all inputs and outputs one name, so that tools see that it is the same."""
    for value in (*graph.input[:inputs], *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_param = "N"


def _limit_of(graph: onnx.GraphProto, number: int, call: _CutCall, given: str) -> str:
    """Return the name of the limit of a block: for an untied one at most its sets of weights."""
    if call.block.largest_unroll is None:
        return given
    most = _add_value(graph, f"block{number}/most_updates", np.int32(call.block.largest_unroll))
    graph.node.append(helper.make_node("Min", [given, most], [f"block{number}/limit"]))
    return f"block{number}/limit"


def _cut_calls(exported: ExportedFunction) -> list[_CutCall]:
    """Return the calls of adjustable blocks, in their order."""
    calls: list[_CutCall] = []
    blocks = [each.block for each in exported.calls if each.block.adjustable]

    def record(block, u, settings):
        inputs = keras.tree.map_structure(_symbolic, u)
        mask = mask_of(u)
        if mask is not None:
            for tensor in _flat(inputs):
                set_mask(tensor, _symbolic(mask))
        state = block.compute_output_spec(inputs)
        calls.append(_CutCall(block, blocks[len(calls)], inputs, state))
        samples = tf.shape(_flat(u)[0])[0]
        counts = tf.zeros([samples], tf.int32)
        # Of the right static shapes: only these matter.
        zeros = [
            tf.zeros([samples if size is None else size for size in z.shape], z.dtype)
            for z in _flat(state)
        ]
        return Unrolled(keras.tree.pack_sequence_as(state, zeros), counts, counts)

    def trace(*inputs):
        # TensorFlow traces a function twice whose layers make variables.
        calls.clear()
        return exported(inputs, None, record)

    tf.function(trace, input_signature=exported.inputs, autograph=False).get_concrete_function()
    return calls


def _check_one_value_a_name(exported: ExportedFunction) -> None:
    """Raise `ValueError` where an output has the name of an input."""
    twice = {spec.name for spec in exported.inputs} & set(exported.output_names)
    if twice:
        raise ValueError(
            "The inputs and outputs of `model` must have different names to be exported to ONNX. "
            f"Received: {sorted(twice)} for both"
        )


def _check_convertible(block: Any) -> None:
    """Raise `ValueError` where a block has loops that cannot be written."""
    if getattr(block, "returns", ()):
        raise ValueError(
            "Blocks must return their state alone to be exported to ONNX. Received: "
            f"{block.name!r} with returns={block.returns}; make the model for export with "
            "`returns=()`, and give it the weights of this one"
        )
    for layer in layers_within(block):
        if is_block(layer) and layer.threshold is not None:
            raise ValueError(
                "A block in the update of another block must have a fixed depth to be exported to "
                f"ONNX. Received: {layer.name!r} in {block.name!r} with "
                f"threshold={layer.threshold}; build it with `threshold=None`, or export a "
                "SavedModel"
            )


def _convert_around(exported: ExportedFunction, calls: Sequence[_CutCall]) -> onnx.ModelProto:
    """Return the converted model without its adjustable blocks.

    The inputs of each of their calls are outputs of the graph, and its outputs are inputs.
    """
    specs = list(exported.inputs)
    for number, call in enumerate(calls):
        for part, output in enumerate(_flat(call.state)):
            shape = output.shape[1:]
            if call.block.channels_first:
                shape = (shape[-1], *shape[:-1])
            specs.append(tf.TensorSpec((None, *shape), tf.float32, f"state{number}_{part}"))
        specs.append(tf.TensorSpec((None,), tf.int32, f"depth{number}"))
        specs.append(tf.TensorSpec((None,), tf.int32, f"status{number}"))

    def around(*values):
        ends, left, starts = iter(values[len(exported.inputs) :]), iter(calls), []

        def cut(block, u, settings):
            call = next(left)
            *states, made, status = [next(ends) for _ in [*_flat(call.state), "depth", "status"]]
            mask = mask_of(u)
            # Blocks take integers and numbers of other precisions, too.
            start = [*_flat(u), *([] if mask is None else [mask])]
            start = [tf.cast(each, tf.float32) for each in start]
            if block.channels_first:
                start, states = [to_channels_first(start[0])], [to_channels_last(states[0])]
            starts.extend(start)
            state = keras.tree.pack_sequence_as(call.state, states)
            return Unrolled(state, made, status)

        outputs = exported(values[: len(exported.inputs)], None, cut)
        return (*outputs.values(), *starts)

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    return convert_model(around, specs)


def _symbolic(tensor: Any) -> keras.KerasTensor:
    return keras.KerasTensor((None, *tensor.shape[1:]), tensor.dtype.name)


def _flat(structure: Any) -> list:
    return keras.tree.flatten(structure)


def _add_value(graph: onnx.GraphProto, name: str, value: Any) -> str:
    """Add a constant to a graph, and return its name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _check_operators(converted: onnx.ModelProto) -> None:
    """Raise `ValueError` for operations that the converter left as TensorFlow has them."""
    left = sorted(
        {
            node.op_type
            for part in all_graphs(converted.graph)
            for node in part.node
            if not node.domain and not onnx.defs.has(node.op_type)
        }
    )
    if left:
        raise ValueError(
            "`model` must have only operations that ONNX has, to be exported to it; replace the "
            "layers that use others, or export a SavedModel. "
            f"Received: the TensorFlow operations {left}"
        )
