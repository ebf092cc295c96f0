"""Stages of functional models of any layers: chains of blocks."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_iterconv._support.keras_graph import Call, run_calls


class ChainBlock(NamedTuple):
    """One block of a `Chain`: the calls that lead from one state to the next.

    Attributes:
        name: Name of the layer that closes the block.
        calls: Calls of layers and Keras operations, each after those whose outputs it reads.
        state: Symbolic state after the block.
    """

    name: str
    calls: list[Call]
    state: keras.KerasTensor


class Chain:
    """A stage of a functional model: blocks, each of which leads from one state to the next.

    The function `chain` finds the blocks. They are run with the layers of the model itself, so
    that a chain has no weights of its own and always uses the present ones. As a `ResidualStage`,
    it runs its blocks on a *schedule*, the sequence of their numbers: a prefix of 0, ..., T-1 stops
    early, a missing number drops a block, and repeating the last number continues beyond the end.

    Args:
        model: Functional model.
        blocks: Blocks in their order.
        first_state: Symbolic state before the first block.
        name: Name in reports.

    Attributes:
        model: The model.
        blocks: The blocks, a list of `ChainBlock`.
        first_state: Symbolic state before the first block.
        name: Name in reports.

    Call arguments:
        state: State before the first block, of the shape that it has in the model.
        schedule: None for all blocks in their order, or a sequence of block numbers from 0.

    Returns:
        The state after the last block of the schedule, in evaluation.

    Raises:
        ValueError: The schedule names a block that the chain does not have.

    Example:
        >>> x = inputs = keras.Input((4,))
        >>> for t in range(3):
        ...     x = keras.layers.Add(name=f"add{t}")([x, keras.layers.Dense(4)(x)])
        >>> stage = ki.chain(keras.Model(inputs, x), "add.", name="stage")
        >>> stage.name, len(stage.blocks)
        ('stage', 3)
        >>> state = np.ones((1, 4), "float32")
        >>> early = stage(state, schedule=[0])  # after the first block
        >>> np.allclose(early, stage.update(state, state, 0))
        True

    See also:
        `chain`, which makes it; `measure_indices`; `GradientCoupling`; `ResidualStage`, which is a
        stage of one layer.
    """

    def __init__(
        self,
        model: keras.Model,
        blocks: list[ChainBlock],
        first_state: keras.KerasTensor,
        name: str,
    ):
        self.model = model
        self.blocks = blocks
        self.first_state = first_state
        self.name = name

    def update(self, state: tf.Tensor, inputs: tf.Tensor, k: int | tf.Tensor) -> tf.Tensor:
        """Run one block, in evaluation.

        Args:
            state: State before the block.
            inputs: State before the first block, which other blocks may read too.
            k: Number of the block from 0, an int or an int32 scalar.

        Returns:
            The state after the block.

        Example:
            >>> x = inputs = keras.Input((4,))
            >>> for t in range(2):
            ...     x = keras.layers.Add(name=f"add{t}")([x, keras.layers.Dense(4)(x)])
            >>> stage = ki.chain(keras.Model(inputs, x), "add.")
            >>> state = np.ones((1, 4), "float32")
            >>> one_by_one = stage.update(stage.update(state, state, 0), state, 1)
            >>> np.allclose(one_by_one, stage(state))
            True

        See also:
            `ResidualStage.update`; `IteratedBlock.update`.
        """
        if isinstance(k, int):
            before = self.blocks[k - 1].state if k else self.first_state
            given = [(self.first_state, inputs), (before, state)]
            return run_calls(self.blocks[k].calls, given, self.blocks[k].state)
        # One graph for all blocks, of which each is traced once.
        return tf.switch_case(
            k, [lambda t=t: self.update(state, inputs, t) for t in range(len(self.blocks))]
        )

    def __call__(self, state: tf.Tensor, schedule: Sequence[int] | None = None) -> tf.Tensor:
        inputs = state = tf.convert_to_tensor(state)
        for t in self._check_schedule(schedule):
            state = self.update(state, inputs, t)
        return state

    def weight_groups(self) -> list[list[keras.Variable]]:
        """Return the trainable weights at the same position of each block.

        The position counts the weights of a block in the order of its calls. Weights that all
        blocks share are left out.

        Raises:
            ValueError: Two blocks differ in the shapes of their weights, or there is no group.

        Example:
            >>> x = inputs = keras.Input((4,))
            >>> for t in range(3):
            ...     x = keras.layers.Add(name=f"add{t}")([x, keras.layers.Dense(4)(x)])
            >>> groups = ki.chain(keras.Model(inputs, x), "add.").weight_groups()
            >>> [len(group) for group in groups]  # three kernels, three biases
            [3, 3]

        See also:
            `GradientCoupling`, which couples them.
        """
        by_block = [_trainable_weights(block) for block in self.blocks]
        groups = []
        for weights in itertools.zip_longest(*by_block):
            shapes = {None if w is None else tuple(w.shape) for w in weights}
            if len(shapes) > 1:
                found = ", ".join(
                    f"{block.name}: " + ("none" if w is None else f"{w.path} {tuple(w.shape)}")
                    for block, w in zip(self.blocks, weights, strict=True)
                )
                raise ValueError(
                    "The blocks of a chain must have trainable weights of the same shapes, in the "
                    f"same order, to be coupled. Received: {self.name!r} with {found}"
                )
            if len(set(map(id, weights))) > 1:
                groups.append(list(weights))
        if not groups:
            raise ValueError(
                f"There is nothing to couple: {self.name!r} has no trainable weights that its "
                f"blocks do not share. Received: {self!r}"
            )
        return groups

    def _check_schedule(self, schedule: Sequence[int] | None) -> list[int]:
        count = len(self.blocks)
        if schedule is None:
            return list(range(count))
        valid = isinstance(schedule, Sequence) and all(
            isinstance(t, int) and not isinstance(t, bool) and 0 <= t < count for t in schedule
        )
        if not valid:
            raise ValueError(
                f"`schedule` must be a sequence of block numbers from 0 to {count - 1}, since "
                f"{self.name!r} has {count} blocks. Received: schedule={schedule!r}"
            )
        return list(schedule)

    def __repr__(self) -> str:
        names = ", ".join(block.name for block in self.blocks)
        return f"<Chain {self.name!r} of {self.model.name!r}: {names}>"


def _trainable_weights(block: ChainBlock) -> list[keras.Variable]:
    """Return the trainable weights of a block, each once, in the order of its calls."""
    weights = {
        id(weight): weight
        for call in block.calls
        for weight in getattr(call.layer, "trainable_variables", ())
    }
    return list(weights.values())
