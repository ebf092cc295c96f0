"""The function of an exported file, of any Keras model: its inputs, its outputs and its depth."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_iterconv._support.empty_batches import only_full_batches
from keras_iterconv._support.keras_graph import input_specs, output_specs
from keras_iterconv._support.outputs import output_key
from keras_iterconv._support.private_keras import (
    graph_of,
    layers_within,
    mask_of,
    set_mask,
)
from keras_iterconv.depth.block_calls import (
    BlockCall,
    block_calls,
    check_model,
    iteration_calls,
)
from keras_iterconv.depth.depth_model import without_depth
from keras_iterconv.depth.depth_settings import DepthSettings
from keras_iterconv.exporting.folding import folded_layer, in_float32
from keras_iterconv.exporting.image_classifier import ImageClassifier
from keras_iterconv.layers.call_record import CallRecord, handling
from keras_iterconv.layers.protocol import Block, is_block
from keras_iterconv.unrolling import Unrolled

THRESHOLD, MAX_UNROLL, DEPTH, STATUS = "threshold", "max_unroll", "depth", "status"


class DepthInput(NamedTuple):
    """An input of a file that sets the depth of blocks at run time.

    Attributes:
        spec: Its name and dtype; a scalar.
        default: The setting of the model.
        path: The block's path; None where all blocks of adaptive depth share the input.
    """

    spec: tf.TensorSpec
    default: float | int
    path: str | None


def run_block(block: Block, inputs: Any, depth: DepthSettings) -> Unrolled:
    """Return the result of an adjustable block at the given depth settings."""
    return block.run_to(inputs, depth.max_unroll, depth.threshold)


class ExportedFunction:
    """A model as its files compute it: in evaluation, in float32, with caps folded into kernels.

    Args:
        model: Any built Keras model: functional, Sequential or subclassed, with nested models.
        classifier: What the file of an image classifier adds; None for the model's own inputs and
            outputs.

    Attributes:
        model: The model.
        structure: Its inputs, symbolic tensors in their structure.
        calls: The calls of its blocks, one column of depth and status each.
        inputs: The specifications of its inputs, flat.
        output_names: The names of its outputs, with those of depth and status where it has blocks.
        depth_inputs: The inputs that set the depth, thresholds first; none for one of fixed depth.

    Raises:
        ValueError: `model` is not a built Keras model, a block's calls cannot be seen, or the names
            of its inputs or outputs are not unique.
    """

    def __init__(self, model: keras.Model, classifier: ImageClassifier | None = None):
        check_model(model)
        # Files have depth and status themselves.
        self.model, self._classifier = without_depth(model), classifier
        self._returns_depth, model = self.model is not model, self.model
        graph = graph_of(model)
        self.structure = input_specs(model) if graph is None else graph.input
        self.calls = block_calls(model)
        self.depth_inputs = _depth_inputs(self.calls)
        flat = tf.nest.flatten(self.structure)
        self.inputs = [
            tf.TensorSpec((None, *z.shape[1:]), z.dtype, name)
            for z, name in zip(flat, _input_names(model, flat), strict=True)
        ]
        if classifier is not None:
            self.inputs = [classifier.input_of(self.inputs)]
        names = _output_names(model) if classifier is None else classifier.output_names
        self.output_names = (*names, *((DEPTH, STATUS) if self.calls else ()))
        check_names("inputs", [spec.name for spec in (*self.inputs, *self.depth_specs)])
        check_names("outputs", self.output_names)
        self._folded: dict[int, tuple[Any, Any]] = {}
        # Not while a graph is traced: TensorFlow traces a function that makes variables twice.
        for call in iteration_calls(model):
            self.folded(call.block)

    @property
    def depth_specs(self) -> list[tf.TensorSpec]:
        """The specifications of the inputs that set the depth."""
        return [each.spec for each in self.depth_inputs]

    @property
    def limits(self) -> dict[str, str]:
        """The metadata of the number of updates for which untied blocks have weights."""
        blocks = [call.block for call in self.calls if call.block.adjustable]
        limits = [block.largest_unroll for block in blocks if block.largest_unroll is not None]
        return {"most_updates": str(min(limits))} if limits else {}

    def __call__(
        self, inputs: Sequence, depth: Sequence | None = None, run_block: Callable = run_block
    ) -> dict[str, tf.Tensor]:
        """Return the outputs of the file, while a graph is traced or at once.

        Args:
            inputs: The values of `inputs`.
            depth: The values of `depth_inputs`; None for the blocks' own settings.
            run_block: Function `(block, inputs, settings)` that runs an adjustable block.

        Raises:
            ValueError: A block runs inside a loop or branch of the model's own.
        """
        given = dict(zip([each.spec.name for each in self.depth_inputs], depth or (), strict=False))
        outputs, depths, statuses = self._run(inputs, given, run_block)
        flat = tf.nest.flatten(outputs)
        if self._classifier is not None:
            flat = self._classifier.predict(flat[0])
        if self.calls:
            flat = [*flat, tf.stack(depths, axis=1), tf.stack(statuses, axis=1)]
        return dict(zip(self.output_names, flat, strict=True))

    def predict(self, inputs: Sequence) -> Any:
        """Return the outputs of the model as it was given, in their structure."""
        outputs, depths, statuses = self._run(inputs, {}, run_block)
        if not self._returns_depth:
            return outputs
        counts = {DEPTH: tf.stack(depths, axis=1), STATUS: tf.stack(statuses, axis=1)}
        return {output_key(self.model): outputs, **counts}

    def _run(
        self, inputs: Sequence, given: Mapping[str, Any], run_block: Callable
    ) -> tuple[Any, list, list]:
        """Return the outputs of the model, and depth and status of each call."""
        record = CallRecord()

        def handle(layer, args, kwargs):
            kwargs = dict(kwargs)
            wanted, twin = kwargs.pop("return_depth", False), self.folded(layer)
            if not is_block(layer):
                return twin(*args, **kwargs)
            if layer.adjustable:
                u = _inputs_of_call(layer, args, kwargs)
                unrolled = run_block(twin, u, self._settings_of(layer, given))
                _pass_mask_on(u, unrolled.state)
            else:
                unrolled = twin(*args, **kwargs, return_depth=True)
            record.add(layer, args, unrolled.depth, unrolled.status)
            return unrolled if wanted else unrolled.state

        if self._classifier is not None:
            inputs = [self._classifier.standardise(inputs[0])]
        structure = tf.nest.pack_sequence_as(self.structure, list(inputs))
        with self.as_exported(), handling(handle):
            outputs = self.model(structure, training=False)
        made = [call for call in record.calls if call.depth is not None]
        if [call.layer for call in made] != [call.block for call in self.calls]:
            raise ValueError(
                f"The model {self.model.name!r} must call the same blocks in the same order in "
                f"each run. Received: calls of {[call.layer.name for call in made]}"
            )
        return outputs, [call.depth for call in made], [call.status for call in made]

    def folded(self, layer: Any) -> Any:
        """Return what runs in place of a layer that is repeated or repeats, made once."""
        if id(layer) not in self._folded:
            with tf.init_scope():
                self._folded[id(layer)] = layer, folded_layer(layer)
        return self._folded[id(layer)][1]

    @contextlib.contextmanager
    def as_exported(self) -> Iterator[None]:
        """Let the model's layers compute as in a file, for conversions of parts of it."""
        with in_float32(self.model), only_full_batches():
            yield

    @property
    def variables(self) -> list:
        """The variables that the traced function reads: weights and depth settings."""
        pairs = [(layer, twin) for layer, twin in self._folded.values() if twin is not layer]
        replaced = {id(v) for layer, _ in pairs for v in layer.variables}
        weights = [v for v in self.model.variables if id(v) not in replaced]
        weights += [v for _, twin in pairs for v in twin.variables]
        roots = (self.model, *(twin for _, twin in pairs))
        # With the blocks in the updates of other blocks.
        within = [layer for root in roots for layer in (root, *layers_within(root))]
        blocks = [layer for layer in dict.fromkeys(within) if is_block(layer) and layer.adjustable]
        settings = [variable for block in blocks for variable in block.depth_variables]
        return [v.value for v in weights] + settings

    def depth_names(self, block: Any) -> dict[str, str]:
        """Return the names of the inputs that set `threshold` and `max_unroll` of a block."""
        path = next(call.path for call in self.calls if call.block is block)
        return {
            each.spec.name.partition("/")[0]: each.spec.name
            for each in self.depth_inputs
            if each.path in (None, path)
        }

    def _settings_of(self, block: Any, given: Mapping[str, Any]) -> DepthSettings:
        """Return the settings of a block, of which those given at run time are tensors."""
        own = DepthSettings(block.max_unroll, block.threshold)
        if block.threshold is None:
            return own._replace(threshold=0.0)
        names = self.depth_names(block)
        max_unroll = own.max_unroll
        if names[MAX_UNROLL] in given:
            most = tf.int32.max if block.largest_unroll is None else block.largest_unroll
            max_unroll = tf.clip_by_value(given[names[MAX_UNROLL]], 1, most)
        return DepthSettings(max_unroll, given.get(names[THRESHOLD], own.threshold))


def shared_depth(model: keras.Model) -> DepthSettings | None:
    """Return the common depth settings of the blocks of adaptive depth; None without such blocks.

    Raises:
        ValueError: The settings of these blocks differ.
    """
    depths = set(_adaptive_settings(block_calls(model)).values())
    if len(depths) > 1:
        raise ValueError(
            "A published model has one `threshold` and one `max_unroll` for all blocks of adaptive "
            f"depth; those of {model.name!r} differ: {sorted(depths)}. Set the same for all by "
            "`keras_iterconv.set_depth`"
        )
    return depths.pop() if depths else None


def _adaptive_calls(calls: Sequence[BlockCall]) -> list[BlockCall]:
    """Return the first call of each block of adaptive depth."""
    first: dict[int, BlockCall] = {}
    for call in calls:
        first.setdefault(id(call.block), call)
    return [c for c in first.values() if c.block.adjustable and c.block.threshold is not None]


def _adaptive_settings(calls: Sequence[BlockCall]) -> dict[str, DepthSettings]:
    return {
        call.path: DepthSettings(call.block.max_unroll, call.block.threshold)
        for call in _adaptive_calls(calls)
    }


def _depth_inputs(calls: Sequence[BlockCall]) -> tuple[DepthInput, ...]:
    """Return one threshold and one `max_unroll` for all blocks, or for each where they differ."""
    settings = _adaptive_settings(calls)
    rules = [call.block.stopping_rule for call in _adaptive_calls(calls)]
    # A threshold of a norm is none of a probability.
    kinds = {(type(rule), getattr(rule, "relative", None)) for rule in rules}
    shared = len(set(settings.values())) == 1 and len(kinds) == 1
    by_suffix = {"": next(iter(settings.values()))} if shared else settings
    return tuple(
        DepthInput(
            tf.TensorSpec((), dtype, f"{kind}/{path}" if path else kind),
            getattr(own, kind),
            path or None,
        )
        for kind, dtype in ((THRESHOLD, tf.float32), (MAX_UNROLL, tf.int32))
        for path, own in by_suffix.items()
    )


def _input_names(model: keras.Model, flat: Sequence) -> list[str]:
    """Return the names that Keras has for a model's inputs, else `"inputs"` with numbers."""
    if graph_of(model) is not None or isinstance(input_specs(model), dict):
        return [z.name for z in flat]
    return ["inputs"] if len(flat) == 1 else [f"inputs_{n}" for n in range(len(flat))]


def _output_names(model: keras.Model) -> list[str]:
    """Return the names of a model's outputs: the key of `with_depth`, or Keras's of several."""
    specs = output_specs(model) if graph_of(model) is None else graph_of(model).output
    flat = keras.tree.flatten_with_path(specs)
    if len(flat) == 1:
        return [output_key(model)]
    if isinstance(specs, dict):
        return ["/".join(map(str, path)) for path, _ in flat]
    names = list(getattr(graph_of(model), "output_names", ()))
    unique = len(set(names)) == len(flat)
    return names if unique else [f"outputs_{number}" for number in range(len(flat))]


def check_names(what: str, names: Sequence[str]) -> None:
    """Raise `ValueError` where two inputs or outputs of a file have one name."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(
            f"The {what} of an exported file must have different names, and those of the depth are "
            f"{THRESHOLD!r}, {MAX_UNROLL!r}, {DEPTH!r} and {STATUS!r}. Rename the model's own. "
            f"Received: {twice} more than once"
        )


def _inputs_of_call(block: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Return the inputs of an adjustable block's call, with the mask that it was given.

    Raises:
        ValueError: The call has a schedule, or is one of training.
    """
    for name in ("schedule", "training"):
        if kwargs.get(name):
            raise ValueError(
                f"The block {block.name!r} must be called without `{name}` to be exported: the "
                "file runs it in evaluation, and sets its number of updates itself. "
                f"Received: {name}={kwargs[name]!r}"
            )
    inputs = args[0] if args else kwargs["inputs"]
    mask = kwargs.get("mask")
    if mask is not None:
        inputs = keras.tree.map_structure(tf.identity, inputs)
        _set_masks(inputs, mask)
    return inputs


def _pass_mask_on(inputs: Any, state: Any) -> None:
    """Attach the Keras mask of a block's inputs to its state, as a call of the block does."""
    mask = mask_of(inputs)
    if mask is not None:
        _set_masks(state, mask)


def _set_masks(tensors: Any, mask: Any) -> None:
    for tensor in tf.nest.flatten(tensors):
        set_mask(tensor, mask)
