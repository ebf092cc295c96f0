"""The depth of a net, and a model that also returns the depth of each sample."""

from typing import Any

import keras

from keras_iterconv._support.keras_graph import check_functional
from keras_iterconv._support.outputs import output_key
from keras_iterconv.layers.protocol import is_block
from keras_iterconv.trainer import IterativeModel


@keras.saving.register_keras_serializable("keras_iterconv")
class ReturnDepth(keras.layers.Wrapper):
    """A wrapper that calls a block with `return_depth=True`.

    The block itself cannot be called again: Keras rejects a functional model with a layer that was
    called before with fewer outputs.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking

    def call(self, inputs: Any, **options: Any) -> Any:
        return self.layer(inputs, return_depth=True, **options)

    def compute_output_spec(self, inputs: Any, **options: Any) -> Any:
        return self.layer.compute_output_spec(inputs, return_depth=True, **options)


def iterated_blocks(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the iterated blocks of a functional model, from input to output.

    Raises:
        ValueError: A block lies in a nested model, whose number of updates cannot be read.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model) and iterated_blocks(layer):
            raise ValueError(
                f"The blocks of {layer.name!r} lie in a model nested in {model.name!r}; build "
                "all blocks into one functional model, so that their depth can be read"
            )
    return [layer for layer in model.layers if is_block(layer)]


def processing_depth(model: keras.Model) -> int:
    """Return the largest number of updates of a sample: the sum of `max_unroll` over the blocks.

    The NAIS-Net paper counts a block of one update as two layers, for its two convolutions; here
    it counts as one.
    """
    return sum(block.max_unroll for block in iterated_blocks(model))


def with_depth(model: keras.Model) -> keras.Model:
    """Return a model with the same weights that also returns the depth of each sample.

    Args:
        model: Functional model of one output with at least one iterated block.

    Returns:
        A functional model of the same inputs, with a dict of outputs. `"logits"` is `[N,
        num_classes]`; its key is `"outputs"` where the model ends in a softmax or a sigmoid, has
        outputs for each position, or where neither its last layers nor its loss show that its
        outputs are logits. `"depth"`, int32 `[N, blocks]`, is the number of updates; `"status"`,
        int32 `[N, blocks]`, a `keras_iterconv.unrolling.Status`.

    Raises:
        ValueError: The model is not functional, has no iterated block, has one that is used twice
            or lies in a nested model, or has more than one output.
    """
    check_functional(model)
    if not iterated_blocks(model):
        raise ValueError(
            "`model` must contain at least one block that counts updates, a NAIS block or a "
            f"residual stage for example. Received: model={model.name!r} without one"
        )
    if len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one output, the logits or probabilities. "
            f"Received: model={model.name!r} with {len(model.outputs)} outputs"
        )
    depths, statuses, seen = [], [], []

    def call(layer, *args, **kwargs):
        # A Keras operation such as `x * 2` has several arguments.
        if not is_block(layer):
            return layer(*args, **kwargs)
        if layer in seen:
            raise ValueError(
                f"The block {layer.name!r} is used more than once; its depth would be ambiguous"
            )
        seen.append(layer)
        returning = ReturnDepth(layer, name=f"{layer.name}_with_depth")
        state, depth, status = returning(*args, **kwargs)
        depths.append(depth)
        statuses.append(status)
        return state

    # The view is not compiled: a clone compiles itself like its original. Its one input is not in
    # a list: Keras would warn at each call with an array.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.input
    view = keras.Model(inputs, model.outputs[0])
    twin = keras.models.clone_model(view, clone_function=lambda layer: layer, call_function=call)
    return IterativeModel(
        twin.input,
        {
            output_key(model): twin.output,
            "depth": keras.ops.stack(depths, axis=1),
            "status": keras.ops.stack(statuses, axis=1),
        },
        name=f"{model.name}_with_depth",
    )
