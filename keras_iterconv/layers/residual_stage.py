"""A stage of residual blocks at one resolution."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_choice, check_positive_int
from keras_iterconv.layers.adjustable_depth import AdjustableDepth
from keras_iterconv.layers.block_values import BlockValues, FunctionWeights, function_weights
from keras_iterconv.layers.ordered_gradients import copies_with_ordered_gradient
from keras_iterconv.layers.protocol import ImageSize
from keras_iterconv.layers.residual_function import ResidualFunction
from keras_iterconv.layers.rules.residual_rule import function_bounds, residual_rows
from keras_iterconv.layers.rules.rows import BlockRow
from keras_iterconv.layers.tied_residual import batch_weights, tied_update
from keras_iterconv.unrolling import BoundUpdate, Unrolled, unroll_traced
from keras_iterconv.unrolling.gradients.fixed_point import fixed_point_mode

SKIPS = ("previous", "stage_input")
GRADIENTS = ("unroll", "recompute", "implicit")
# Of the norms in training, relative; most reach it in one cycle of `converged_norm`.
TRAINING_TOLERANCE = 1e-3


@keras.saving.register_keras_serializable("keras_iterconv")
class ResidualStage(AdjustableDepth, ResidualFunction):
    """A chain of T residual blocks, z_t = z_{t-1} + f_t(z_{t-1}) or x + f_t(z_{t-1}), z_0 = x.

    f_t is the function of a `ResidualBlock`; each block has its own weights and statistics. The
    weights of all blocks are stored in stacked variables, `[blocks, ...]`, which
    `GradientCoupling` finds.

    A *tied* stage has one block, which it runs T times. With `skip_from="stage_input"` and a cap
    below one each update is a contraction, so that the states converge to one fixed point for each
    x; with a threshold each sample stops by itself. T and the threshold can be set at any time. In
    training a tied f normalises by the statistics of the batch at the first update, for all
    updates of the call, so that it has one cap; these statistics also move the moving ones. Under
    mixed precision the states and a tied f are float32: f rounded to half precision is no
    contraction, so that samples might never stop.

    A *schedule* is the sequence of the numbers of the blocks that run, by default 0, 1, ..., T-1.
    A prefix of the default stops early, a missing number drops a block, and repeating the last
    number continues beyond the end of the stage. A tied stage makes as many updates as the
    schedule has numbers.

    Args:
        filters: The channels of inputs and outputs.
        blocks: T, at least 1; of a tied stage with a threshold the largest number of updates.
        skip_from: `"previous"`: z + f(z), an ordinary ResNet or, with a cap, the ICR of Lippl et
            al.; `"stage_input"`: x + f(z), their PCR, where each block with a cap below one is a
            contraction.
        shared_initialization: Whether all blocks start from the same kernels, as blocks with
            coupled gradients should.
        lipschitz_cap: mu for each f_t, or None for no cap.
        initial_gamma: The initial value of all gammas, positive.
        gradient: `"unroll"`, which keeps all activations of each block for the backward pass, of a
            tied stage the change of the state; or `"recompute"`, which keeps each block's input
            only and recomputes the block, of a tied stage all states. The gradients are equal. For
            a tied stage that contracts also `"implicit"`, the gradient of the fixed point which
            the last state approximates; it keeps none. With a cap all of them leave out that the
            divisor depends on the variances of the batch: in evaluation it is that of the moving
            ones, which no gradient reaches.
        tied: Whether all updates share one block.
        threshold: For a tied stage the stopping threshold: a sample stops after the first update
            whose 2-norm is below it. None for exactly T updates.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            samples together, as one device would.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: x, `[N, height, width, filters]`; with a cap, height and width must be known.
        training: Whether to normalise by the batch's statistics and to update the moving ones.
        schedule: None, or a sequence of block numbers from 0. Samples do not stop within it.
        return_depth: Return an `Unrolled` of state, depth and status; the depth is the number of
            blocks that ran.

    Returns:
        The last state, of the inputs' shape, in the layer's compute dtype; with `return_depth`
        also depth and status, int32 `[N]` each.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 8, 8, 4))
        >>> stage = ki.ResidualStage(4, blocks=3)
        >>> early, late = stage(x, schedule=[0]), stage(x)  # after one block, and after all three
        >>> stage = ki.ResidualStage(
        ...     4, 99, "stage_input", lipschitz_cap=0.5, tied=True, threshold=0.1)
        >>> _, depth, status = stage(x, return_depth=True)
        >>> [ki.unrolling.Status(s).name for s in status]  # a contraction has one fixed point
        ['CONVERGED', 'CONVERGED']

    Reference:
        Lippl et al. 2024, "Manipulating convergence and iteration in residual networks".

    See also:
        `ResidualBlock`; `GradientCoupling`; `measure_indices`; `chain`, for blocks of any layers.
    """

    adjustable = False
    # What the exporter to ONNX asks of a block with `adds_change`.
    initial_state = "input"
    solver = "picard"

    def __init__(
        self,
        filters: int,
        blocks: int,
        skip_from: str = "previous",
        shared_initialization: bool = False,
        lipschitz_cap: float | None = None,
        initial_gamma: float = 1.0,
        gradient: str = "unroll",
        tied: bool = False,
        threshold: float | None = None,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        blocks = check_positive_int("blocks", blocks)
        super().__init__(
            filters,
            None if tied else blocks,
            shared_initialization,
            lipschitz_cap,
            initial_gamma,
            synchronized,
            **kwargs,
        )
        self.skip_from = check_choice("skip_from", skip_from, SKIPS)
        self.gradient = check_choice("gradient", gradient, GRADIENTS)
        self.tied = self.adjustable = self.adds_change = self.channels_first = bool(tied)
        if tied:
            self.set_up_depth(blocks, threshold, tied)
        else:
            self._max_unroll_value, self.threshold = blocks, threshold
        if gradient == "implicit" and not self.contracts:
            raise ValueError(
                '`gradient="implicit"` needs an update that contracts: `tied=True`, '
                '`skip_from="stage_input"` and a `lipschitz_cap` below 1. Use "unroll" or '
                f'"recompute". Received: tied={tied}, skip_from={skip_from!r}, '
                f"lipschitz_cap={lipschitz_cap}"
            )

    @property
    def contracts(self) -> bool:
        """Whether each update is a contraction by the cap, and all updates are the same."""
        capped = self.lipschitz_cap is not None and self.lipschitz_cap < 1
        return self.tied and capped and self.skip_from == "stage_input"

    @property
    def inexact_gradients(self) -> tuple[str, ...]:
        return ("implicit",) if self.contracts else ()

    @property
    def scheduled(self) -> bool:  # type: ignore[override]
        """Whether the number of updates is fixed, so that a schedule can change it."""
        return self.threshold is None

    @property
    def blocks(self) -> int:
        """T, the number of blocks, or of updates of a tied stage."""
        return self.max_unroll

    def check_max_unroll(self, value: int) -> int:
        if self.tied:
            return super().check_max_unroll(value)
        raise ValueError(
            f"`max_unroll` of {self.name!r} cannot be set: the stage is untied and has "
            f"{self.blocks} blocks; a `schedule` reads it out early. Received: max_unroll={value}"
        )

    def check_threshold(self, value: float) -> float:
        if self.tied:
            return super().check_threshold(value)
        raise ValueError(
            "`threshold` needs `tied=True`: the blocks of an untied stage have no common fixed "
            f"point at which a sample could stop. Received: threshold={value}"
        )

    @property
    def state_dtype(self) -> str:
        """The dtype of the states and f: of a tied stage float32 also in mixed precision."""
        mixed = self.tied and self.compute_dtype != "float64"
        return "float32" if mixed else self.compute_dtype

    def make_initial_state(self, inputs: tf.Tensor) -> tf.Tensor:
        # z_0, in the dtype of the states.
        return tf.cast(inputs, self.state_dtype)

    def _lipschitz_bound(self, block: BlockValues) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if not self.tied:
            return super()._lipschitz_bound(block)
        # One step of power iteration would be below the norm. The states of a tied stage converge
        # in training too, and its implicit gradient exists, only where the cap holds.
        return self._converged_bound(block, tolerance=TRAINING_TOLERANCE, continued=True)

    def build_update(self, inputs: tf.Tensor, data_format: str = "NHWC") -> BoundUpdate:
        """Return the update of a tied stage in evaluation, with its tensors.

        Args:
            inputs: x.
            data_format: The layout of x and the states: `"NHWC"`, or `"NCHW"` for exporters.
        """
        (block,) = self.block_values()
        return self._update_of(inputs, function_weights(block), data_format)

    def _update_of(
        self, inputs: tf.Tensor, weights: FunctionWeights, data_format: str = "NHWC"
    ) -> BoundUpdate:
        return tied_update(self.make_initial_state(inputs), weights, self.skip_from, data_format)

    def update(self, state: tf.Tensor, inputs: tf.Tensor, k: int | tf.Tensor = 0) -> tf.Tensor:
        """Run one block, in evaluation.

        Args:
            state: z, `[N, height, width, filters]`.
            inputs: x, the stage's input, of the same shape.
            k: The block's number from 0, an int or an int32 scalar; all updates of a tied stage
                are the same.

        Returns:
            z + f_k(z), or x + f_k(z) where `skip_from="stage_input"`.

        Raises:
            ValueError: k is not the number of a block of the stage.
        """
        if isinstance(k, int) and not 0 <= k < self.blocks:
            raise ValueError(f"`k` must be from 0 to {self.blocks - 1}. Received: k={k}")
        inputs = tf.cast(inputs, self.compute_dtype)
        state = tf.cast(state, self.state_dtype)
        if self.tied:
            new, _ = self.build_update(inputs).step(state, k)
            return new
        change = self._evaluate(state, self.block_value(k))
        return (state if self.skip_from == "previous" else inputs) + change

    def _check_schedule(self, schedule: Sequence[int] | None) -> list[int]:
        if schedule is None:
            return list(range(self.blocks))
        valid = isinstance(schedule, Sequence) and all(
            isinstance(t, int) and not isinstance(t, bool) and 0 <= t < self.blocks
            for t in schedule
        )
        if not valid:
            raise ValueError(
                f"`schedule` must be a sequence of block numbers from 0 to {self.blocks - 1}. "
                f"Received: schedule={schedule!r}"
            )
        return list(schedule)

    def run_to(
        self,
        inputs: tf.Tensor,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None = None,
        schedule: Sequence[int] | None = None,
        **options: Any,
    ) -> Unrolled:
        if self.tied:
            inputs = tf.cast(inputs, self.compute_dtype)
            if schedule is not None:
                max_unroll = tf.minimum(max_unroll, len(schedule))
            fixed = schedule is not None or self.threshold is None
            return self._repeat(
                self.build_update(inputs), inputs, max_unroll, None if fixed else threshold
            )
        schedule = list(range(self.blocks)) if schedule is None else list(schedule)
        return self(inputs, schedule=schedule[:max_unroll], **options, return_depth=True)

    def call(
        self,
        inputs: tf.Tensor,
        training: bool | None = None,
        schedule: Sequence[int] | None = None,
        return_depth: bool = False,
    ) -> tf.Tensor | Unrolled:
        numbers = self._check_schedule(schedule)
        # Images may be integers, which Keras does not cast.
        inputs = tf.cast(inputs, self.compute_dtype)
        if self.tied:
            unrolled = self._run_tied(inputs, None if schedule is None else numbers, training)
        else:
            unrolled = self._run_chain(inputs, numbers, training)
        return unrolled if return_depth else unrolled.state

    def _run_chain(self, inputs: tf.Tensor, schedule: list[int], training: bool | None) -> Unrolled:
        """Return the result of an untied stage."""
        training = training and self.trainable
        state = inputs
        if self.skip_from == "previous":
            skips = None
        else:
            state, *skips = copies_with_ordered_gradient(inputs, len(schedule) + 1)
        blocks = self.block_values()
        train = self._train if self.gradient == "unroll" else self._train_recomputed
        for k, t in enumerate(schedule):
            if training:
                change, blocks[t] = train(state, blocks[t])
            else:
                change = self._evaluate(state, blocks[t])
            # Not `+`: for an unknown batch size its gradient includes reductions for broadcasting.
            state = tf.add_n([state if skips is None else skips[k], change])
        if training:
            self._store_moving(blocks)
        return Unrolled.fixed(state, len(schedule))

    def _run_tied(
        self, inputs: tf.Tensor, schedule: list[int] | None, training: bool | None
    ) -> Unrolled:
        """Return the result of a tied stage; with a schedule, of as many updates."""
        inputs = self.make_initial_state(inputs)
        (block,) = self.block_values()
        if training and self.trainable:
            seen, inputs = copies_with_ordered_gradient(inputs, 2)
            weights, after = batch_weights(
                seen, block, functools.partial(self._moved, block), self.synchronized
            )
            self._store_moving([after])
        else:
            weights = function_weights(block)
        max_unroll, threshold = self.depth_variables
        # Outside training a backward pass is rare, so that no tensors are kept for it.
        gradient = self.gradient if training else "recompute"
        if schedule is not None:
            max_unroll = len(schedule)
            # A schedule need not end near the fixed point.
            gradient = "recompute" if gradient == "implicit" else gradient
        fixed = schedule is not None or self.threshold is None
        update = self._update_of(inputs, weights)
        unrolled = self._repeat(update, inputs, max_unroll, None if fixed else threshold, gradient)
        return unrolled._replace(state=tf.cast(unrolled.state, self.compute_dtype))

    def _repeat(
        self,
        update: BoundUpdate,
        inputs: tf.Tensor,
        max_unroll: int | tf.Tensor,
        threshold: float | tf.Tensor | None,
        gradient: str = "recompute",
    ) -> Unrolled:
        """Return the result of the loop of a tied stage, its states in their own dtype."""
        mode = fixed_point_mode(self.name) if gradient == "implicit" else gradient
        return unroll_traced(update, self.make_initial_state(inputs), max_unroll, threshold, mode)

    def folded_config(self) -> dict[str, Any]:
        # Without a cap there is no implicit gradient; a copy for inference needs none.
        return {**super().folded_config(), "gradient": "recompute"}

    def compute_output_spec(
        self,
        inputs: tf.Tensor,
        training: bool | None = None,
        schedule: Sequence[int] | None = None,
        return_depth: bool = False,
    ) -> keras.KerasTensor | Unrolled:
        self._check_schedule(schedule)
        # Given explicitly, since Keras would trace the whole stage to infer it.
        state = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if not return_depth:
            return state
        samples = inputs.shape[:1]
        return Unrolled(
            state,
            keras.KerasTensor(samples, dtype="int32"),
            keras.KerasTensor(samples, dtype="int32"),
        )

    def certificate_rows(self, image: ImageSize) -> list[BlockRow]:
        return residual_rows(self, image, self.skip_from)

    def lipschitz_gain(
        self,
        gains: Sequence[float],
        norm: str,
        rows: Sequence[BlockRow],
        options: Mapping[str, Any],
    ) -> float:
        bounds = function_bounds(self, norm, rows)
        state = gains[0]
        for t in options.get("schedule", range(self.blocks)):
            skip = state if self.skip_from == "previous" else gains[0]
            state = skip + bounds[0 if self.tied else t] * state
        return state

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "blocks": self.blocks,
            "skip_from": self.skip_from,
            "shared_initialization": self.shared_initialization,
            "gradient": self.gradient,
            "tied": self.tied,
            "threshold": self.threshold,
        }
