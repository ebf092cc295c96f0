"""A stage of residual blocks at one resolution."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_choice
from keras_iterconv.layers.ordered_gradients import copies_with_ordered_gradient
from keras_iterconv.layers.protocol import Block, ImageSize
from keras_iterconv.layers.residual_function import ResidualFunction
from keras_iterconv.layers.rules.residual_rule import function_bounds, residual_rows
from keras_iterconv.layers.rules.rows import BlockRow
from keras_iterconv.unrolling import Unrolled

SKIPS = ("previous", "stage_input")
GRADIENTS = ("unroll", "recompute")


@keras.saving.register_keras_serializable("keras_iterconv")
class ResidualStage(Block, ResidualFunction):
    """A chain of T residual blocks, z_t = z_{t-1} + f_t(z_{t-1}) or x + f_t(z_{t-1}), z_0 = x.

    f_t is the function of a `ResidualBlock`; each block has its own weights and statistics. The
    weights of all blocks are stored in stacked variables, `[blocks, ...]`, which
    `GradientCoupling` finds.

    A *schedule* is the sequence of the numbers of the blocks that run, by default 0, 1, ..., T-1.
    A prefix of the default stops early, a missing number drops a block, and repeating the last
    number continues beyond the end of the stage.

    Args:
        filters: The channels of inputs and outputs.
        blocks: T, at least 1.
        skip_from: `"previous"`: z + f(z), an ordinary ResNet or, with a cap, the ICR of Lippl et
            al.; `"stage_input"`: x + f(z), their PCR, where each block with a cap below one is a
            contraction.
        shared_initialization: Whether all blocks start from the same kernels, as blocks with
            coupled gradients should.
        lipschitz_cap: mu for each f_t, or None for no cap.
        initial_gamma: The initial value of all gammas, positive.
        gradient: `"unroll"`, which keeps all activations of each block for the backward pass, or
            `"recompute"`, which keeps each block's input only and recomputes the block. The
            gradients are equal.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: x, `[N, height, width, filters]`; with a cap, height and width must be known.
        training: Whether to normalise by the batch's statistics and to update the moving ones.
        schedule: None, or a sequence of block numbers from 0.
        return_depth: Return an `Unrolled` of state, depth and status; the depth is the number of
            blocks that ran.

    Returns:
        The last state, of the inputs' shape, in the layer's compute dtype; with `return_depth`
        also depth and status, int32 `[N]` each.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit.

    Example:
        >>> stage = ResidualStage(16, blocks=4)
        >>> early = stage(keras.random.normal((8, 32, 32, 16)), schedule=[0, 1])

    Reference:
        Lippl et al. 2024, "Manipulating convergence and iteration in residual networks".
    """

    scheduled = True

    _blocks: int

    def __init__(
        self,
        filters: int,
        blocks: int,
        skip_from: str = "previous",
        shared_initialization: bool = False,
        lipschitz_cap: float | None = None,
        initial_gamma: float = 1.0,
        gradient: str = "unroll",
        **kwargs: Any,
    ):
        if blocks is None:
            raise ValueError("`blocks` must be an integer of at least 1. Received: blocks=None")
        super().__init__(
            filters, blocks, shared_initialization, lipschitz_cap, initial_gamma, **kwargs
        )
        self.skip_from = check_choice("skip_from", skip_from, SKIPS)
        self.gradient = check_choice("gradient", gradient, GRADIENTS)

    @property
    def blocks(self) -> int:
        """T, the number of blocks."""
        return cast(int, self._blocks)

    @property
    def max_unroll(self) -> int:  # type: ignore[override]
        """T, the number of updates: each block is one update of the state."""
        return cast(int, self._blocks)

    def update(self, state: tf.Tensor, inputs: tf.Tensor, k: int | tf.Tensor) -> tf.Tensor:
        """Run one block, in evaluation.

        Args:
            state: z, `[N, height, width, filters]`.
            inputs: x, the stage's input, of the same shape.
            k: The block's number from 0, an int or an int32 scalar.

        Returns:
            z + f_k(z), or x + f_k(z) where `skip_from="stage_input"`.

        Raises:
            ValueError: k is not the number of a block of the stage.
        """
        if isinstance(k, int) and not 0 <= k < self.blocks:
            raise ValueError(f"`k` must be from 0 to {self.blocks - 1}. Received: k={k}")
        state, inputs = (tf.cast(z, self.compute_dtype) for z in (state, inputs))
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
        schedule = list(range(self.blocks)) if schedule is None else list(schedule)
        return self(inputs, schedule=schedule[:max_unroll], **options, return_depth=True)

    def call(
        self,
        inputs: tf.Tensor,
        training: bool | None = None,
        schedule: Sequence[int] | None = None,
        return_depth: bool = False,
    ) -> tf.Tensor | Unrolled:
        schedule = self._check_schedule(schedule)
        training = training and self.trainable
        # Images may be integers, which Keras does not cast.
        inputs = state = tf.cast(inputs, self.compute_dtype)
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
        if not return_depth:
            return state
        return Unrolled.fixed(state, len(schedule))

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
            state = skip + bounds[t] * state
        return state

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "blocks": self.blocks,
            "skip_from": self.skip_from,
            "shared_initialization": self.shared_initialization,
            "gradient": self.gradient,
        }
