"""How deep a net is, and how deep it went for each sample."""

import keras

from keras_iterconv._support.keras_graph import check_functional
from keras_iterconv._support.outputs import output_key
from keras_iterconv.layers import IteratedBlock, ResidualStage, ResidualUpdate
from keras_iterconv.trainer import IterativeModel

# A stage counts as one block of as many updates as it has blocks.
_BLOCKS = (IteratedBlock, ResidualStage, ResidualUpdate)


@keras.saving.register_keras_serializable("keras_iterconv")
class ReturnDepth(keras.layers.Wrapper):
    """A block that always returns its depth and status.

    Keras refuses a functional model in which one layer was called before with fewer outputs, so
    that the block itself cannot be called anew.
    """

    def call(self, inputs, **options):
        return self.layer(inputs, return_depth=True, **options)

    def compute_output_spec(self, inputs, **options):
        return self.layer.compute_output_spec(inputs, return_depth=True, **options)


def iterated_blocks(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the blocks of a functional model that count updates, from input to output.

    Raises:
        ValueError: A block lies in a model within the model, where its updates could not be read.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model) and iterated_blocks(layer):
            raise ValueError(
                f"The blocks of {layer.name!r} lie in a model within {model.name!r}; build the "
                "blocks into one functional model, so that their depth can be read"
            )
    return [layer for layer in model.layers if isinstance(layer, _BLOCKS)]


def processing_depth(model: keras.Model) -> int:
    """Return the number of updates that a sample makes at most: the sum of `max_unroll`.

    NAIS-Net counts a block of one update as two, for its two convolutions; here it is one.
    """
    return sum(block.max_unroll for block in iterated_blocks(model))


def with_depth(model: keras.Model) -> keras.Model:
    """Return a model over the same weights that also says how deep it went.

    Args:
        model: A functional model of one output with at least one iterated block.

    Returns:
        A functional model of the same inputs, with a dict of outputs: `"logits"`
        `[N, num_classes]`, or `"outputs"` where the model ends in a softmax or a sigmoid, or
        nothing tells that its outputs are logits; `"depth"`, int32 `[N, blocks]`, the updates
        made; `"status"`, int32 `[N, blocks]`, a `keras_iterconv.unrolling.Status` each.

    Raises:
        ValueError: The model is not functional, has no iterated block, one that is used twice or
            lies in a model within the model, or more than one output.
    """
    check_functional(model)
    if not iterated_blocks(model):
        raise ValueError(
            "`model` must hold at least one iterated block (NAISConv2D, NAISDense, ResidualStage "
            f"or ResidualUpdate); {model.name!r} has none."
        )
    if len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one output, the logits or probabilities. "
            f"Received: model={model.name!r} with {len(model.outputs)} outputs"
        )
    depths, statuses, seen = [], [], []

    def call(layer, *args, **kwargs):
        # An operation, as `x * 2` is, has several arguments.
        if not isinstance(layer, _BLOCKS):
            return layer(*args, **kwargs)
        if layer in seen:
            raise ValueError(
                f"The block {layer.name!r} is used more than once; its depth has no place"
            )
        seen.append(layer)
        returning = ReturnDepth(layer, name=f"{layer.name}_with_depth")
        state, depth, status = returning(*args, **kwargs)
        depths.append(depth)
        statuses.append(status)
        return state

    # A view of the model that is not compiled: a clone would compile itself like its original.
    # A list of one tensor would warn at each call, and no array is one.
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
