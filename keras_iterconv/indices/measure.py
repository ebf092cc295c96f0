"""Measuring the indices of a net, by running it with perturbed stages."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.batches import labelled_batches
from keras_iterconv._support.checks import check_positive_int, check_seed
from keras_iterconv._support.keras_graph import (
    calls,
    calls_between,
    check_functional,
    input_specs,
    producers,
    run_calls,
)
from keras_iterconv._support.private_keras import graph_of, layers_within
from keras_iterconv.chains import Chain
from keras_iterconv.indices.index_report import IndexReport, StageErrors, make_report
from keras_iterconv.layers.protocol import is_block
from keras_iterconv.tasks import infer_task

REPEATS = 16


class _Stage(NamedTuple):
    """A stage of a functional model.

    Attributes:
        name: Name in reports.
        blocks: Number of blocks.
        update: Function `(state, inputs, k)` that runs block k, an int32 scalar.
        input: Symbolic state before the first block.
        output: Symbolic state after the last block.
    """

    name: str
    blocks: int
    update: Callable
    input: keras.KerasTensor
    output: keras.KerasTensor


def measure_indices(
    model: keras.Model | Chain | Sequence[Chain],
    dataset: Any,
    resamples: int = 1000,
    seed: int = 0,
    samples: int | None = None,
) -> IndexReport:
    """Return the convergence, recurrence and divergence index of each stage of a trained net.

    One stage at a time is perturbed, in evaluation. It is read out after each block, run without
    each block, and run with its last block applied up to 16 more times; the layers after it are
    not perturbed. The states along a stage are computed once for all perturbations.

    Args:
        model: Functional or built Sequential model of one output, logits or probabilities, with at
            least one stage whose blocks can be run in any order, such as a `ResidualStage`. Each
            stage must lie on all paths from input to output. Or a `Chain`, or a list of chains of
            one such model of any layers: these are then the stages.
        dataset: Batches `(images, labels)`, e.g. a `tf.data.Dataset`; or one pair of arrays.
            Labels are class numbers, `[N]`; or multi-hot, `[N, classes]`: a prediction is then
            correct where the n largest outputs are those of the n labelled classes; or class
            numbers, `[N, positions]`, for outputs `[N, positions, classes]`: a prediction is then
            correct where it is correct at all positions.
        resamples: Number of bootstrap samples for the intervals.
        seed: Seed of the bootstrap, an integer of at least 0.
        samples: Number of images, from the first on. None for all images of a finite data set.

    Returns:
        An `IndexReport`.

    Raises:
        ValueError: An argument is out of its range; the model has no stage, or one that is used
            twice, lies in a nested model or is not on all paths; chains are of different models;
            the labels do not fit the outputs, or are those of a regression; or the data set is
            empty, or infinite while `samples` is None.

    Example:
        >>> x = inputs = keras.Input((4,))
        >>> for t in range(3):
        ...     x = keras.layers.Add(name=f"add{t}")([x, keras.layers.Dense(4)(x)])
        >>> model = keras.Model(inputs, keras.layers.Dense(3)(x))
        >>> data = np.random.default_rng(0).normal(size=(64, 4))
        >>> labels = model.predict(data, verbose=0).argmax(-1)  # an error of 0 for the whole net
        >>> report = ki.measure_indices(ki.chain(model, "add."), (data, labels))
        >>> report.error, report.convergence.shape
        (0.0, (1,))
        >>> report.errors[0].early_readout.round(1).tolist()  # after each block
        [0.5, 0.6, 0.0]

    Reference:
        Lippl et al. 2024, "Iterative convergence indices", Fig. 2.

    See also:
        `IndexReport`; `plot_indices`; `chain`, for nets of any layers; `GradientCoupling`, which
        makes a net more iterative.
    """
    check_positive_int("resamples", resamples)
    check_seed(seed)
    if samples is not None:
        check_positive_int("samples", samples)
    if isinstance(model, keras.Model):
        net = _PerturbedNet(model, residual_stages(model))
    else:
        net = _PerturbedNet(*_stages_of_chains(model))
    wrong_of_batches, all_labels = [], []
    for images, labels in labelled_batches(dataset, samples):
        labels = np.asarray(labels)
        wrong_of_batches.append(net.wrong(images, labels))
        all_labels.append(labels)
    if not wrong_of_batches:
        raise ValueError("`dataset` must hold at least one batch. Received: an empty data set")
    labels = np.concatenate(all_labels)
    errors = [
        StageErrors(*(np.concatenate(curve, axis=1) for curve in zip(*stage, strict=True)))
        for stage in zip(*wrong_of_batches, strict=True)
    ]
    chance = net.task.chance_error(labels, net.classes)
    return make_report([stage.name for stage in net.stages], errors, chance, resamples, seed)


def _is_stage(layer: Any) -> bool:
    return is_block(layer) and layer.scheduled


def _stages_of_chains(chains: Any) -> tuple[keras.Model, list[_Stage]]:
    """Return the model of one or several chains, and the chains as stages."""
    found = [chains] if isinstance(chains, Chain) else chains
    valid = isinstance(found, Sequence) and all(isinstance(chain, Chain) for chain in found)
    if not valid or not found:
        raise ValueError(
            "`model` must be a functional Keras model, as `create_model` returns, a `Chain` or a "
            f"list of chains. Received: model={chains!r}"
        )
    model = found[0].model
    for chain in found:
        if chain.model is not model:
            raise ValueError(
                "`model` must be a list of chains of one model. "
                f"Received: chains of {model.name!r} and {chain.model.name!r}"
            )
    _check_one_output(model)
    return model, [
        _Stage(c.name, len(c.blocks), c.update, c.first_state, c.blocks[-1].state) for c in found
    ]


def _check_one_output(model):
    if len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one output, the logits or probabilities. "
            f"Received: model={model.name!r} with {len(model.outputs)} outputs"
        )


def residual_stages(model: keras.Model) -> list[_Stage]:
    """Return the residual stages of a functional model, from input to output.

    Raises:
        ValueError: The model has no stage, or one that is used twice or lies in a nested model.
    """
    check_functional(model)
    for layer in model.layers:
        if isinstance(layer, keras.Model) and any(map(_is_stage, layers_within(layer))):
            raise ValueError(
                f"A stage lies in {layer.name!r}, a model nested in {model.name!r}; build "
                "all stages into one functional model, so that they can be run separately"
            )
    _check_one_output(model)
    stages = [call for call in calls(model) if _is_stage(call.layer)]
    if not stages:
        raise ValueError(
            f"{model.name!r} has no stage whose blocks can be run in another order, so there is "
            "no index to measure. Describe a stage of it by `ki.chain`; or use a `ResidualStage`, "
            "as resnet_w*, icr_w* and pcr_w* do, or a block of your own with `scheduled = True`. A "
            "tied stage that stops each sample by a threshold has a fixed sequence of blocks after "
            "`set_depth(model, threshold=None)`"
        )
    layers = [call.layer for call in stages]
    for stage in layers:
        if layers.count(stage) > 1:
            raise ValueError(f"The stage {stage.name!r} is used more than once")
    for call in stages:
        if call.options.get("schedule") is not None:
            raise ValueError(
                f"The stage {call.layer.name!r} is called with a schedule; indices are defined for "
                f"a stage that runs its blocks in order. Received: {call.options}"
            )
    return [
        _Stage(
            call.layer.name,
            call.layer.max_unroll,
            call.layer.update,
            call.inputs[0],
            call.outputs[0],
        )
        for call in stages
    ]


class _PerturbedNet:
    """The parts of a net that are run separately, each traced once.

    Attributes:
        stages: The stages.
        classes: Size of the last axis of the outputs.
        task: The task, inferred from the last batch; None before the first.
    """

    def __init__(self, model: keras.Model, stages: list[_Stage]):
        model = graph_of(model)
        self.task: Any = None
        self.stages = stages
        self.classes = model.outputs[0].shape[-1]
        (output,) = model.outputs
        trunk = keras.Model(input_specs(model), [*(stage.input for stage in stages), output])
        self.trunk = tf.function(lambda x: trunk(x, training=False), reduce_retracing=True)
        self.updates = [tf.function(s.update, reduce_retracing=True) for s in self.stages]
        self.readouts = [self._readout(model, stage) for stage in stages]

    @staticmethod
    def _readout(model, stage):
        rest = calls_between(producers(model), model.outputs[0], (stage.output,))
        if rest is None:
            raise ValueError(
                f"A path from input to output leads around the stage {stage.name!r}, so "
                "the stage cannot be read out early"
            )
        return tf.function(
            lambda state: run_calls(rest, [(stage.output, state)], model.outputs[0]),
            reduce_retracing=True,
        )

    def wrong(self, images: Any, labels: np.ndarray) -> list[StageErrors]:
        """Return, for each stage and perturbation, whether each prediction is wrong."""
        *inputs, outputs = self.trunk(images)
        self.task = infer_task(outputs.shape, labels)
        full = self.task.is_wrong(np.asarray(outputs), labels)
        return [self._wrong_of_stage(s, x, full, labels) for s, x in enumerate(inputs)]

    def _wrong_of_stage(self, s: int, x: Any, full: np.ndarray, labels: np.ndarray) -> StageErrors:
        blocks, update = self.stages[s].blocks, self.updates[s]

        def wrong(state):
            return self.task.is_wrong(np.asarray(self.readouts[s](state)), labels)

        def run(state, schedule):
            for t in schedule:
                state = update(state, x, tf.constant(t))
            return state

        states = [x]
        for t in range(blocks):
            states.append(run(states[-1], [t]))
        early = [*(wrong(state) for state in states[1:-1]), full]
        # Leaving out the last block is the same as reading out after the last but one.
        left_out = [wrong(run(states[t], range(t + 1, blocks))) for t in range(blocks - 1)]
        left_out.append(early[-2] if blocks > 1 else wrong(x))
        repeated, state = [], states[-1]
        for _ in range(REPEATS):
            state = run(state, [blocks - 1])
            repeated.append(wrong(state))
        return StageErrors(np.stack(early), np.stack(left_out), np.stack(repeated))
