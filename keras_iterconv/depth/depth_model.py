"""The depth of a net, and a model that also returns the depth of each sample."""

from typing import Any

import keras

from keras_iterconv._support.keras_graph import input_specs
from keras_iterconv._support.outputs import output_key
from keras_iterconv._support.private_keras import graph_of
from keras_iterconv.depth.block_calls import block_calls, check_has_blocks
from keras_iterconv.layers.call_record import recording
from keras_iterconv.trainer import IterativeModel


@keras.saving.register_keras_serializable("keras_iterconv")
class ModelWithDepth(keras.layers.Wrapper):
    """A layer that calls a model, and returns also the depth and status of each call of a block.

    Args:
        layer: Keras model with at least one block.
        output: The key of the model's outputs.
        **kwargs: Passed to `keras.layers.Wrapper`.
    """

    def __init__(self, layer: keras.Model, output: str = "logits", **kwargs: Any):
        # The model gets its inputs as they are: those of float64 stay so.
        super().__init__(layer, **{"autocast": False, **kwargs})
        self.output_key = output

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        blocks = [call.block for call in block_calls(self.layer)]
        # In a function: Keras would take blocks in a list for layers of this one.
        self._blocks = lambda: blocks

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        with recording() as record:
            outputs = self.layer(_as_structure_of(self.layer, inputs))
        made = [call for call in record.calls if call.depth is not None]
        if [call.layer for call in made] != self._blocks():
            raise ValueError(
                f"The model {self.layer.name!r} must call the same blocks in the same order in "
                "each run, so that each has a column of `depth`. "
                f"Received: calls of {[call.layer.name for call in made]}, "
                f"after {[block.name for block in self._blocks()]}"
            )
        return {
            self.output_key: _without_structure_of_one(outputs),
            "depth": keras.ops.stack([call.depth for call in made], axis=1),
            "status": keras.ops.stack([call.status for call in made], axis=1),
        }

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        # Given explicitly, since Keras would trace the loops of all blocks to infer it.
        inputs = _as_structure_of(self.layer, inputs)
        samples = keras.tree.flatten(inputs)[0].shape[0]
        shape = (samples, len(self._blocks()))
        return {
            self.output_key: _without_structure_of_one(self.layer.compute_output_spec(inputs)),
            "depth": keras.KerasTensor(shape, "int32"),
            "status": keras.KerasTensor(shape, "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output": self.output_key}


def _as_structure_of(model: keras.Model, inputs: Any) -> Any:
    """Return one tensor in the list or dict that a model of one input was made with."""
    graph = graph_of(model)
    if graph is None or keras.tree.is_nested(inputs):
        return inputs
    return keras.tree.pack_sequence_as(graph.input, [inputs])


def _without_structure_of_one(outputs: Any) -> Any:
    flat = keras.tree.flatten(outputs)
    return flat[0] if len(flat) == 1 else outputs


def without_depth(model: keras.Model) -> keras.Model:
    """Return the model that `with_depth` was called on, or a model that it did not make itself."""
    last = model.layers[-1] if model.layers else None
    return last.layer if isinstance(last, ModelWithDepth) else model


def _for_any_batch(model: keras.Model) -> keras.Model:
    """Return a model whose convolutions accept empty batches: of the same layers, where it can."""
    graph = graph_of(model)
    if graph is None or isinstance(model, IterativeModel):
        return model
    return IterativeModel(graph.input, graph.output, name=model.name)


def processing_depth(model: keras.Model) -> int:
    """Return the largest number of updates of a sample: the sum of `max_unroll` over all calls.

    The NAIS-Net paper counts a block of one update as two layers, for its two convolutions; here
    it counts as one.

    Args:
        model: Keras model; a Sequential or subclassed one must be built.

    Raises:
        ValueError: As in `block_calls`.

    Example:
        >>> blocks = [ki.NAISDense(8, max_unroll=30), ki.NAISDense(8, max_unroll=5)]
        >>> ki.processing_depth(keras.Sequential([keras.Input((8,)), *blocks]))
        35

    See also:
        `set_depth`; `with_depth`, for the updates that a sample makes; `block_calls`.
    """
    return sum(call.block.max_unroll for call in block_calls(model))


def with_depth(model: keras.Model) -> keras.Model:
    """Return a model with the same weights that also returns the depth of each sample.

    Args:
        model: Keras model with at least one iterated block, in itself, in a model nested in it or
            in any of its layers. A Sequential or subclassed model must be built: call it on a
            batch first. Inputs of a subclassed model are converted to float32, since Keras does
            not keep their dtype.

    Returns:
        A functional model of the same inputs, with a dict of outputs. `"logits"` is `[N,
        num_classes]`; its key is `"outputs"` where the model has several outputs, ends in a softmax
        or a sigmoid, has outputs for each position, or where neither its last layers nor its loss
        show that its outputs are logits. `"depth"`, int32 `[N, calls]`, is the number of updates;
        `"status"`, int32 `[N, calls]`, a `keras_iterconv.unrolling.Status`. There is a column for
        each call of a block; `block_calls` names them.

    Raises:
        ValueError: `model` is not a Keras model, is not built, or has no iterated block; or a block
            runs inside a loop or branch of the model's own, where its depth cannot be read.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=100, threshold=1e-2, step_size=0.5, shift=0.3)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> inputs = np.ones((3, 4)) * [[0.0], [0.1], [1.0]]
        >>> found = ki.with_depth(model).predict(inputs, verbose=0)
        >>> found["depth"].tolist()  # a row for each sample, a column for each call of a block
        [[1], [13], [25]]
        >>> found["status"].tolist()  # all have converged
        [[0], [0], [0]]

    See also:
        `block_calls`, which names the columns; `predict_stream`, which is faster where depths
        differ; `unrolling.Status`; `DepthLogger`, in training.
    """
    check_has_blocks(model)
    inputs = keras.tree.map_structure(
        lambda z: keras.Input(batch_shape=z.shape, dtype=z.dtype, name=z.name), input_specs(model)
    )
    returning = ModelWithDepth(_for_any_batch(model), output_key(model), name="with_depth")
    return IterativeModel(inputs, returning(inputs), name=f"{model.name}_with_depth")
