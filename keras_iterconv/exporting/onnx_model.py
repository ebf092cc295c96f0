"""Conversion of models to ONNX, with loops of adaptive depth."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import TensorProto, helper, numpy_helper

from keras_iterconv._support.keras_graph import inputs_of
from keras_iterconv._support.private_keras import mask_of
from keras_iterconv.depth.block_calls import block_calls, iterated_blocks
from keras_iterconv.exporting.exported_function import infer, output_names, shared_depth
from keras_iterconv.exporting.onnx_blocks import (
    BlockConverter,
    to_channels_first,
    to_channels_last,
)
from keras_iterconv.exporting.onnx_graph import (
    inline,
    remove_identities,
    rename_outputs,
    simplify,
    sort_nodes,
)
from keras_iterconv.exporting.onnx_parts import OPSET
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import TASKS, Task
from keras_iterconv.unrolling import Unrolled

# The oldest version of the format that supports opset 18, for older runtimes.
IR_VERSION = 8


def to_onnx(
    model: keras.Model,
    preprocessing: Preprocessing,
    metadata: Mapping[str, str],
    task: Task = TASKS["classes"],
) -> onnx.ModelProto:
    """Return a model as an ONNX model.

    Args:
        model: Functional model in float32, from standardised images to logits or probabilities.
        preprocessing: Standardisation of raw pixel values.
        metadata: Metadata of the file.
        task: Task of the model.

    Returns:
        A model of opset 18. Its input is `image`, float32 `[N, H, W, C]` in raw values; a net of
        adaptive depth has two more inputs with defaults, the scalars `threshold`, float32, and
        `max_unroll`, int32. The outputs are those of `infer`.

    Raises:
        ValueError: Blocks of adaptive depth differ in threshold or `max_unroll`, a block's solver
            is Anderson acceleration, a block is called twice, or the outputs are neither logits nor
            probabilities.
    """
    depth = shared_depth(model)
    for block in iterated_blocks(model):
        if getattr(block, "returns", ()):
            raise ValueError(
                "Blocks must return their state alone to be exported to ONNX. Received: "
                f"{block.name!r} with returns={block.returns}; make the model for export with "
                "`returns=()`, and give it the weights of this one"
            )
    blocks = [call.block for call in block_calls(model) if call.block.adjustable]
    if len(set(blocks)) < len(blocks):
        twice = next(block.name for block in blocks if blocks.count(block) > 1)
        raise ValueError(
            "Each block must be called once to be exported to ONNX. "
            f"Received: {twice!r}, which is called more than once"
        )
    outputs = output_names(task)
    converted = _convert_around(model, blocks, preprocessing, task)
    graph = converted.graph
    simplify(graph)
    ends = iter([value.name for value in graph.input[1:]])
    starts = iter([value.name for value in graph.output[len(outputs) :]])
    del graph.input[1:], graph.output[len(outputs) :]
    if depth is not None:
        graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, ()))
        graph.input.append(helper.make_tensor_value_info("max_unroll", TensorProto.INT32, ()))
    for number, block in enumerate(blocks):
        inputs = [next(starts) for _ in _inputs_of(model, block)]
        if block.threshold is None:
            name = f"{block.name}/max_unroll"
            inputs.append(_add_value(graph, name, np.int32(block.max_unroll)))
        else:
            inputs += ["max_unroll", "threshold"]
        results = [next(ends) for _ in [*_flat(block.output), "depth", "status"]]
        graph.node.append(helper.make_node(f"block{number}", inputs, results))
    sort_nodes(graph)
    converter = BlockConverter()
    for number, block in enumerate(blocks):
        inline(graph, f"block{number}", converter.convert(block, inputs_of(model, block)))
    remove_identities(graph)
    rename_outputs(graph, outputs)
    if depth is not None:
        # An initializer with the name of an input is its default.
        _add_value(graph, "threshold", np.float32(depth.threshold))
        _add_value(graph, "max_unroll", np.int32(depth.max_unroll))
    converted.ir_version = IR_VERSION
    converted.producer_name = "keras_iterconv"
    texts = dict(metadata)
    # Untied blocks have weights for a fixed number of updates.
    limits = [b.largest_unroll for b in blocks if b.largest_unroll is not None]
    if limits:
        texts["most_updates"] = str(min(limits))
    helper.set_model_props(converted, texts)
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _convert_around(model: Any, blocks: Sequence, preprocessing: Any, task: Any) -> onnx.ModelProto:
    """Return the converted model without its NAIS blocks.

    The input of each block is an output of the graph, and the block's outputs are inputs.
    """
    specs = [tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, "image")]
    for number, block in enumerate(blocks):
        for part, output in enumerate(_flat(block.output)):
            shape = output.shape[1:]
            if block.channels_first:
                shape = (shape[-1], *shape[:-1])
            specs.append(tf.TensorSpec((None, *shape), tf.float32, f"state{number}_{part}"))
        specs.append(tf.TensorSpec((None,), tf.int32, f"depth{number}"))
        specs.append(tf.TensorSpec((None,), tf.int32, f"status{number}"))

    def around(image, *ends):
        starts, rest = {}, iter(ends)
        # In the order of the specifications, whatever the order of the calls.
        results = {
            block: [next(rest) for _ in [*_flat(block.output), "depth", "status"]]
            for block in blocks
        }

        def cut(block, u, depth):
            *states, made, status = results[block]
            mask = mask_of(u)
            starts[block] = [*_flat(u), *([] if mask is None else [tf.cast(mask, tf.float32)])]
            if block.channels_first:
                starts[block], states = [to_channels_first(u)], [to_channels_last(states[0])]
            state = keras.tree.pack_sequence_as(block.output, states)
            return Unrolled(state, made, status)

        outputs = infer(model, image, preprocessing, None, task, cut)
        return (*outputs.values(), *(u for block in blocks for u in starts[block]))

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = tf.function(around, input_signature=specs, autograph=False)
    converted, _ = tf2onnx.convert.from_function(function, specs, opset=OPSET)
    return converted


def _flat(structure: Any) -> list:
    return keras.tree.flatten(structure)


def _inputs_of(model: Any, block: Any) -> list:
    """Return the symbolic inputs of a block, and the mask if they carry one."""
    inputs = inputs_of(model, block)
    mask = mask_of(inputs)
    return [*_flat(inputs), *([] if mask is None else [mask])]


def _add_value(graph: onnx.GraphProto, name: str, value: Any) -> str:
    """Add a constant to a graph, and return its name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name
