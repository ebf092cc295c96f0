"""Soft gradient coupling: the gradients of separate weights are blended with their mean."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_choice
from keras_iterconv.chains import Chain
from keras_iterconv.coupled_groups import (
    check_groups,
    find_groups,
    first_names,
    variable_name,
)
from keras_iterconv.layers.stacked_variables import is_stack

KERNELS = ("uniform", "triangular")


@keras.saving.register_keras_serializable("keras_iterconv")
class GradientCoupling:
    r"""Blend the gradients of the blocks of a stage: (1 - lambda) d_t + lambda sum_s K_ts d_s.

    d_t is the gradient of block t of T. With the uniform kernel the sum is the mean over the
    blocks: a strength of 0 trains the blocks independently, and with a strength of 1 blocks that
    start equal stay equal. The coupling acts on raw gradients, before the optimizer's clipping,
    momentum and weight decay. It is linear, so that it may act on each replica and on each part of
    an accumulated batch. Shared weights would receive the sum of the gradients, not their mean:
    with plain SGD, a strength of 1 equals sharing at a learning rate that is T times smaller.

    Pass it to `IterativeModel.compile`, or call it in a custom training loop. It does not change
    moving statistics, which have no gradient.

    Args:
        strength: lambda, in [0, 1]; or a schedule of it, which is a
            `keras.optimizers.schedules.LearningRateSchedule` or another function of the optimizer's
            iteration, an int or a scalar. Its values are clipped to [0, 1]. The strength of a
            coupling cannot be assigned, since compiled training steps would not see it.
        kernel: `"uniform"`, or `"triangular"`: K_ts in proportion to 1 - |t - s| / T, each row
            summing to 1.
        members: The blocks of each group that are coupled, as a slice: `slice(-8, None)` for the
            last eight, `slice(5, None)` for all but the first five; None for all. The other blocks
            keep their gradients.
        groups: None, to couple the blocks of each stacked variable of `ResidualStage` and of
            untied NAIS blocks. A `Chain` or a list of chains, to couple the weights at the same
            position of each block. A regular expression, which must match whole paths of variables,
            such as `r"stage1_block(\d+)/(.*)"`: its first group is the block, by number or else in
            the order of the variables; weights of different blocks are coupled where the other
            groups match the same and, if there are several such weights in a block, in their order.
            Or a list of groups, each a list of variables of one shape in the order of the blocks:
            Keras or TensorFlow variables, or `path`s of Keras variables.

    Call arguments:
        gradients: A list of tensors, one for each variable, or None where there is no gradient.
        variables: A list of as many variables.
        iteration: The optimizer's iteration, for a schedule of the strength.

    Returns:
        The list of coupled gradients.

    Raises:
        ValueError: An argument is out of its range; a group has different shapes, a variable of
            another group, only one variable, or a variable that is not among `variables`; a weight
            has no counterpart in another block; there is nothing to couple; or a schedule is called
            without the iteration.

    Example:
        >>> coupling = ki.GradientCoupling(0.5)
        >>> coupling.matrix(2).tolist()  # half of the own gradient, half of the mean
        [[0.75, 0.25], [0.25, 0.75]]
        >>> kernels = [keras.Variable([0.0], name="a"), keras.Variable([0.0], name="b")]
        >>> coupling = ki.GradientCoupling(1.0, groups=[kernels])
        >>> gradients = coupling([tf.constant([1.0]), tf.constant([3.0])], kernels)
        >>> [g.numpy().tolist() for g in gradients]
        [[2.0], [2.0]]

    Reference:
        Lippl et al. 2024, Eq. 1 and 2; S4 Fig for the kernel and the members.

    See also:
        `IterativeModel.compile`, which takes it; `chain`, for blocks of any layers;
        `measure_indices`, for what the coupling changes.
    """

    def __init__(
        self,
        strength: float | Callable,
        kernel: str = "uniform",
        members: slice | None = None,
        groups: Sequence | Chain | str | None = None,
    ):
        self._strength = _check_strength(strength)
        self.kernel = check_choice("kernel", kernel, KERNELS)
        if members is not None and not _is_slice_of_numbers(members):
            raise ValueError(
                "`members` must be None or a slice of block numbers: slice(-8, None) for the last "
                f"eight, slice(5, None) for all but the first five. Received: members={members!r}"
            )
        self.members = members
        self.groups = None if groups is None else check_groups(groups)

    @property
    def strength(self) -> float | Callable:
        """The strength lambda, or the schedule of it."""
        return self._strength

    def strength_at(self, iteration: Any = None) -> float | tf.Tensor:
        """Return lambda at an iteration: a float or, from a schedule, a float32 scalar.

        Args:
            iteration: The optimizer's iteration; None is enough for a strength without a schedule.

        Raises:
            ValueError: There is a schedule, and no iteration.

        Example:
            >>> schedule = keras.optimizers.schedules.PiecewiseConstantDecay([100], [1.0, 0.5])
            >>> coupling = ki.GradientCoupling(schedule)
            >>> float(coupling.strength_at(0)), float(coupling.strength_at(200))
            (1.0, 0.5)

        See also:
            `GradientCoupling.matrix`.
        """
        if not callable(self.strength):
            return self.strength
        if iteration is None:
            raise ValueError(
                "`iteration` must be given for a strength with a schedule: `coupling(gradients, "
                "variables, optimizer.iterations)`. Received: iteration=None"
            )
        return tf.clip_by_value(tf.cast(self.strength(iteration), tf.float32), 0.0, 1.0)

    def __call__(self, gradients: Sequence, variables: Sequence, iteration: Any = None) -> list:
        gradients = list(gradients)
        if len(gradients) != len(variables):
            raise ValueError(
                "`gradients` and `variables` must have the same length. "
                f"Received: {len(gradients)} gradients, {len(variables)} variables"
            )
        variable_indices = self.find_coupled(variables)
        strength = self.strength_at(iteration)
        # For a schedule that is a tensor.
        if not callable(self.strength) and strength == 0:
            return gradients
        if self.groups is None:
            for i in variable_indices:
                if gradients[i] is not None:
                    gradients[i] = self._couple(tf.convert_to_tensor(gradients[i]), strength)
            return gradients
        for group in variable_indices:
            if all(gradients[i] is None for i in group):
                continue
            # In the coupling, None counts as a gradient of zero.
            stack = tf.stack(
                [
                    tf.zeros(variables[i].shape, variables[i].dtype)
                    if gradients[i] is None
                    else tf.convert_to_tensor(gradients[i])
                    for i in group
                ]
            )
            coupled = tf.unstack(self._couple(stack, strength))
            # Other blocks keep their gradients, also None: with a zero in its place, the
            # optimizer's momentum would change their weights.
            for t in self._members(len(group)):
                gradients[group[t]] = coupled[t]
        return gradients

    def find_coupled(self, variables: Sequence, frozen: Sequence = ()) -> list:
        """Return which variables of a model are coupled.

        Args:
            variables: The trainable variables.
            frozen: The other variables. An error message names those that should be coupled.

        Returns:
            The indices of the stacked variables in `variables` or, with `groups`, a list of indices
            for each group.

        Raises:
            ValueError: As for a call.

        Example:
            >>> variables = [keras.Variable([0.0], name=name) for name in "abc"]
            >>> ki.GradientCoupling(0.5, groups=[["a", "c"]]).find_coupled(variables)
            [[0, 2]]

        See also:
            `Chain.weight_groups`.
        """
        if self.groups is not None:
            index_groups = find_groups(self.groups, variables, frozen)
            for group in index_groups:
                self._members(len(group))
            return index_groups
        stack_indices = [i for i, variable in enumerate(variables) if is_stack(variable)]
        if not stack_indices:
            raise ValueError(_nothing_to_couple([v for v in frozen if is_stack(v)]))
        for i in stack_indices:
            self._members(variables[i].shape[0])
        return stack_indices

    def _couple(self, stack: tf.Tensor, strength: float | tf.Tensor) -> tf.Tensor:
        """Return the coupled gradients of one group, `[blocks, ...]`."""
        if isinstance(strength, tf.Tensor):
            strength = tf.cast(strength, stack.dtype)
        if self.members is None and self.kernel == "uniform":
            mean = tf.reduce_mean(stack, axis=0, keepdims=True)
            return (1 - strength) * stack + strength * mean
        matrix = tf.convert_to_tensor(self._matrix(stack.shape[0], strength), stack.dtype)
        return tf.tensordot(matrix, stack, axes=1)

    def matrix(self, blocks: int, iteration: Any = None) -> np.ndarray:
        """Return the matrix that maps gradients to coupled gradients, float64 `[blocks, blocks]`.

        Args:
            blocks: T, the number of blocks of the group.
            iteration: The optimizer's iteration, for a schedule of the strength.

        Raises:
            ValueError: `members` selects none of the blocks, or a schedule has no iteration.

        Example:
            >>> ki.GradientCoupling(1.0, kernel="triangular").matrix(3).round(2).tolist()
            [[0.5, 0.33, 0.17], [0.29, 0.43, 0.29], [0.17, 0.33, 0.5]]

        See also:
            `GradientCoupling.strength_at`.
        """
        return self._matrix(blocks, float(self.strength_at(iteration)))

    def _matrix(self, blocks: int, strength: float | tf.Tensor) -> Any:
        coupled = self._members(blocks)
        weights = np.ones((len(coupled), len(coupled)))
        if self.kernel == "triangular":
            weights -= np.abs(np.subtract.outer(coupled, coupled)) / blocks
        weights /= weights.sum(axis=1, keepdims=True)
        # The change at full strength, of which a strength is a part: blocks that are not coupled
        # keep their gradients exactly.
        change = np.zeros((blocks, blocks))
        change[np.ix_(coupled, coupled)] = weights - np.eye(len(coupled))
        return np.eye(blocks) + change * strength

    def _members(self, blocks: int) -> np.ndarray:
        """Return the numbers of the coupled blocks of a group, `[members]`."""
        coupled = np.arange(blocks)[slice(None) if self.members is None else self.members]
        if not len(coupled):
            raise ValueError(
                f"`members` must select at least one of the {blocks} blocks of a group. "
                f"Received: members={self.members}"
            )
        return coupled

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the coupling, as JSON can hold them."""
        members = self.members
        strength, groups = self.strength, self.groups
        if callable(strength):
            strength = keras.saving.serialize_keras_object(strength)
        if groups is not None and not isinstance(groups, str):
            groups = [[variable_name(member) for member in group] for group in groups]
        return {
            "strength": strength,
            "kernel": self.kernel,
            "members": None if members is None else [members.start, members.stop, members.step],
            "groups": groups,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientCoupling":
        """Return the coupling that gave this configuration."""
        config = dict(config)
        if isinstance(config["strength"], dict):
            config["strength"] = keras.saving.deserialize_keras_object(config["strength"])
        if config["members"] is not None:
            config["members"] = slice(*config["members"])
        return cls(**config)


def _is_slice_of_numbers(members: Any) -> bool:
    try:
        members.indices(1)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def as_coupling(coupling: Any) -> Callable | None:
    """Return the `coupling` given to `compile` as a callable on gradients and variables, or None.

    Raises:
        ValueError: `coupling` is neither None, nor a number in [0, 1], nor callable.
    """
    is_schedule = isinstance(coupling, keras.optimizers.schedules.LearningRateSchedule)
    if coupling is None or (callable(coupling) and not is_schedule):
        return coupling
    try:
        return GradientCoupling(coupling)
    except ValueError as error:
        raise ValueError(
            "`coupling` must be None, a strength in [0, 1], or a callable (gradients, variables) "
            f"-> gradients such as GradientCoupling. Received: coupling={coupling!r}"
        ) from error


def _check_strength(strength: Any) -> float | Callable:
    if callable(strength):
        first = np.asarray(strength(0))
        if first.shape != () or not 0 <= first <= 1:
            raise ValueError(
                "`strength` must be a schedule of scalars in [0, 1]. "
                f"Received: strength={strength!r}, which gives {first!r} for iteration 0"
            )
        return strength
    number = isinstance(strength, int | float | np.floating | np.integer)
    if not number or isinstance(strength, bool) or not 0 <= strength <= 1:
        raise ValueError(f"`strength` must lie in [0, 1]. Received: strength={strength!r}")
    return float(strength)


def _nothing_to_couple(frozen_stacks: Sequence) -> str:
    if frozen_stacks:
        return (
            "There is nothing to couple: all stacked variables are frozen, "
            f"{first_names(frozen_stacks)}. Set `trainable=True` for their layers and compile "
            "again, or train without a coupling."
        )
    return (
        "There is nothing to couple: no layer of the model keeps the weights of several blocks in "
        "one stacked variable. Pass `groups`, or train without a coupling."
    )
