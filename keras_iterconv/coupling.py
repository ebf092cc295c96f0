"""Soft gradient coupling: the gradients of separate weights are blended with their mean."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_choice
from keras_iterconv.layers.stacked_variables import is_stack

KERNELS = ("uniform", "triangular")


@keras.saving.register_keras_serializable("keras_iterconv")
class GradientCoupling:
    """Blend the gradients of the blocks of a stage: (1 - lambda) d_t + lambda sum_s K_ts d_s.

    d_t is the gradient of block t of T. With the uniform kernel the sum is the mean over the
    blocks: a strength of 0 trains the blocks independently, and with a strength of 1 blocks that
    start equal stay equal. The coupling acts on raw gradients, before the optimizer's clipping,
    momentum and weight decay. It is linear, so that it may act on each replica and on each part of
    an accumulated batch. Shared weights would receive the sum of the gradients, not their mean:
    with plain SGD, a strength of 1 equals sharing at a learning rate that is T times smaller.

    Pass it to `IterativeModel.compile`, or call it in a custom training loop. It does not change
    moving statistics, which have no gradient.

    Args:
        strength: lambda, in [0, 1].
        kernel: `"uniform"`, or `"triangular"`: K_ts in proportion to 1 - |t - s| / T, each row
            summing to 1.
        members: The blocks of each group that are coupled, as a slice: `slice(-8, None)` for the
            last eight, `slice(5, None)` for all but the first five; None for all. The other blocks
            keep their gradients.
        groups: None, to couple the blocks of each stacked variable of `ResidualStage` and of
            untied NAIS blocks. Or a list of groups, each a list of variables of one shape in the
            order of the blocks: Keras or TensorFlow variables, or `path`s of Keras variables.

    Call arguments:
        gradients: A list of tensors, one for each variable, or None where there is no gradient.
        variables: A list of as many variables.

    Returns:
        The list of coupled gradients.

    Raises:
        ValueError: An argument is out of its range; a group has different shapes, a variable of
            another group, only one variable, or a variable that is not among `variables`; or there
            is nothing to couple.

    Example:
        >>> coupling = GradientCoupling(0.9, groups=[["a/kernel", "b/kernel"]])
        >>> optimizer.apply(coupling(gradients, variables), variables)

    Reference:
        Lippl et al. 2024, Eq. 1 and 2; S4 Fig for the kernel and the members.
    """

    def __init__(
        self,
        strength: float,
        kernel: str = "uniform",
        members: slice | None = None,
        groups: Sequence[Sequence] | None = None,
    ):
        self.strength = _check_strength(strength)
        self.kernel = check_choice("kernel", kernel, KERNELS)
        if members is not None and not _is_slice_of_numbers(members):
            raise ValueError(
                "`members` must be None or a slice of block numbers: slice(-8, None) for the last "
                f"eight, slice(5, None) for all but the first five. Received: members={members!r}"
            )
        self.members = members
        self.groups = None if groups is None else _check_groups(groups)

    def __call__(self, gradients: Sequence, variables: Sequence) -> list:
        gradients = list(gradients)
        if len(gradients) != len(variables):
            raise ValueError(
                "`gradients` and `variables` must have the same length. "
                f"Received: {len(gradients)} gradients, {len(variables)} variables"
            )
        variable_indices = self.find_coupled(variables)
        if self.strength == 0:
            return gradients
        if self.groups is None:
            for i in variable_indices:
                if gradients[i] is not None:
                    gradients[i] = self._couple(tf.convert_to_tensor(gradients[i]))
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
            coupled = tf.unstack(self._couple(stack))
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
        """
        if self.groups is not None:
            index_groups = [
                [_find(member, variables, frozen) for member in group] for group in self.groups
            ]
            for group in index_groups:
                _check_shapes([variables[i] for i in group])
                self._members(len(group))
            # A path and a variable can only be compared here, where the paths are resolved.
            all_indices = [i for group in index_groups for i in group]
            for i in all_indices:
                _check_once(all_indices.count(i) == 1, variables[i])
            return index_groups
        stack_indices = [i for i, variable in enumerate(variables) if is_stack(variable)]
        if not stack_indices:
            raise ValueError(_nothing_to_couple([v for v in frozen if is_stack(v)]))
        for i in stack_indices:
            self._members(variables[i].shape[0])
        return stack_indices

    def _couple(self, stack: tf.Tensor) -> tf.Tensor:
        """Return the coupled gradients of one group, `[blocks, ...]`."""
        count = stack.shape[0]
        if self.members is None and self.kernel == "uniform":
            mean = tf.reduce_mean(stack, axis=0, keepdims=True)
            return (1 - self.strength) * stack + self.strength * mean
        matrix = tf.constant(self.matrix(count), stack.dtype)
        return tf.tensordot(matrix, stack, axes=1)

    def matrix(self, blocks: int) -> np.ndarray:
        """Return the matrix that maps gradients to coupled gradients, float64 `[blocks, blocks]`.

        Args:
            blocks: T, the number of blocks of the group.

        Raises:
            ValueError: `members` selects none of the blocks.
        """
        coupled = self._members(blocks)
        weights = np.ones((len(coupled), len(coupled)))
        if self.kernel == "triangular":
            weights -= np.abs(np.subtract.outer(coupled, coupled)) / blocks
        weights /= weights.sum(axis=1, keepdims=True)
        matrix = np.eye(blocks)
        matrix[np.ix_(coupled, coupled)] = (1 - self.strength) * np.eye(
            len(coupled)
        ) + self.strength * weights
        return matrix

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
        return {
            "strength": self.strength,
            "kernel": self.kernel,
            "members": None if members is None else [members.start, members.stop, members.step],
            "groups": None
            if self.groups is None
            else [[_name(member) for member in group] for group in self.groups],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientCoupling":
        """Return the coupling that gave this configuration."""
        members = config["members"]
        return cls(**{**config, "members": None if members is None else slice(*members)})


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
    if coupling is None or callable(coupling):
        return coupling
    try:
        return GradientCoupling(coupling)
    except ValueError as error:
        raise ValueError(
            "`coupling` must be None, a strength in [0, 1], or a callable (gradients, variables) "
            f"-> gradients such as GradientCoupling. Received: coupling={coupling!r}"
        ) from error


def _check_strength(strength: Any) -> float:
    number = isinstance(strength, int | float | np.floating | np.integer)
    if not number or isinstance(strength, bool) or not 0 <= strength <= 1:
        raise ValueError(f"`strength` must lie in [0, 1]. Received: strength={strength!r}")
    return float(strength)


def _check_groups(groups: Any) -> list[list]:
    wrong = isinstance(groups, str) or not isinstance(groups, Sequence) or not len(groups)
    if wrong or any(isinstance(g, str) or not isinstance(g, Sequence) for g in groups):
        raise ValueError(
            "`groups` must be a list of lists of variables or of their paths. "
            f"Received: groups={groups!r}"
        )
    seen = set()
    for group in groups:
        for member in group:
            if not isinstance(member, str | keras.Variable | tf.Variable):
                raise ValueError(
                    "`groups` must hold Keras or TensorFlow variables, or paths of Keras "
                    f"variables. Received: {member!r} in a group"
                )
        if len(group) < 2:
            raise ValueError(
                "Each group of `groups` must hold at least two variables. "
                f"Received: {[_name(member) for member in group]}"
            )
        if not any(isinstance(member, str) for member in group):
            _check_shapes(group)
        for member in group:
            key = member if isinstance(member, str) else id(member)
            _check_once(key not in seen, member)
            seen.add(key)
    return [list(group) for group in groups]


def _check_once(once: bool, member: Any) -> None:
    if not once:
        raise ValueError(
            f"`groups` must hold each variable once. Received twice: {_name(member)!r}"
        )


def _nothing_to_couple(frozen_stacks: Sequence) -> str:
    if frozen_stacks:
        return (
            "There is nothing to couple: all stacked variables are frozen, "
            f"{_first_names(frozen_stacks)}. Set `trainable=True` for their layers and compile "
            "again, or train without a coupling."
        )
    return (
        "There is nothing to couple: no layer of the model keeps the weights of several blocks in "
        "one stacked variable. Pass `groups`, or train without a coupling."
    )


def _check_shapes(group):
    shapes = {_name(variable): tuple(variable.shape) for variable in group}
    if len({tuple(variable.shape) for variable in group}) > 1:
        raise ValueError(
            f"The variables of each group of `groups` must have one shape. Received: {shapes}"
        )


def _find(member: Any, variables: Sequence, frozen: Sequence) -> int:
    def is_member(variable: Any) -> bool:
        return _name(variable) == member if isinstance(member, str) else variable is member

    variable_indices = [i for i, variable in enumerate(variables) if is_member(variable)]
    if not variable_indices and any(is_member(variable) for variable in frozen):
        raise ValueError(
            f"`groups` names {_name(member)!r}, which is frozen. Set `trainable=True` for its "
            "layer and compile again, or leave it out of `groups`."
        )
    if len(variable_indices) != 1:
        raise ValueError(
            f"`groups` names {_name(member)!r}, which matches {len(variable_indices)} of the "
            f"trainable variables; the first of these are {_first_names(variables)}. Name "
            "trainable variables of the model, each by a path that no other variable has."
        )
    return variable_indices[0]


def _first_names(variables: Sequence) -> str:
    return ", ".join(_name(variable) for variable in variables[:8])


def _name(variable: Any) -> str:
    if isinstance(variable, str):
        return variable
    return getattr(variable, "path", None) or variable.name
