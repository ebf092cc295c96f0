"""Soft gradient coupling: weights that are trained apart are pulled along a common way."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_choice
from keras_iterconv.layers.stacked_variables import is_stack

KERNELS = ("uniform", "triangular")


@keras.saving.register_keras_serializable("keras_iterconv")
class GradientCoupling:
    """Blend the gradients of the blocks of a stage: (1 - lambda) d_t + lambda sum_s K_ts d_s.

    With the uniform kernel the sum is the mean over the blocks: 0 trains them apart, and 1 keeps
    blocks that start equal equal. It acts on raw gradients, before the optimizer's clipping,
    momentum and weight decay, and is linear, so that it may act on each replica and on each part
    of an accumulated batch. Truly shared weights would receive the sum and not the mean: with
    plain SGD, a strength of 1 trains like sharing at a learning rate T times smaller.

    Give it to `IterativeModel.compile`, or call it in a loop of your own. It never touches
    statistics, which have no gradient.

    Args:
        strength: lambda, in [0, 1].
        kernel: `"uniform"`, or `"triangular"`: K_ts in proportion to 1 - |t - s| / T, each row
            summing to 1.
        members: Which blocks of each group are coupled, as a slice: `slice(-8, None)` the last
            eight, `slice(5, None)` all but the first five; None for all. The others keep their
            gradients.
        groups: None, to couple the blocks of each stacked variable of `ResidualStage` and of
            untied NAIS blocks; or lists of variables of one shape each, in the order of the
            blocks: Keras or TensorFlow variables, or the `path` of a Keras variable.

    Call arguments:
        gradients: A list of tensors, one for each variable, or None where there is no gradient.
        variables: A list of as many variables.

    Returns:
        The list of coupled gradients.

    Raises:
        ValueError: An argument is out of its range, a group has unlike shapes, a variable in two
            groups, one variable only or one that is not among `variables`; or there is nothing to
            couple.

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
                "`gradients` and `variables` must be of one length. "
                f"Received: {len(gradients)} gradients, {len(variables)} variables"
            )
        places = self.find_coupled(variables)
        if self.strength == 0:
            return gradients
        if self.groups is None:
            for i in places:
                if gradients[i] is not None:
                    gradients[i] = self._couple(tf.convert_to_tensor(gradients[i]))
            return gradients
        for group in places:
            if all(gradients[i] is None for i in group):
                continue
            # No gradient is a gradient of zero for the others.
            stack = tf.stack(
                [
                    tf.zeros(variables[i].shape, variables[i].dtype)
                    if gradients[i] is None
                    else tf.convert_to_tensor(gradients[i])
                    for i in group
                ]
            )
            coupled = tf.unstack(self._couple(stack))
            # The others keep what they had: a zero for None would let momentum move them.
            for t in self._members(len(group)):
                gradients[group[t]] = coupled[t]
        return gradients

    def find_coupled(self, variables: Sequence, frozen: Sequence = ()) -> list:
        """Find what is coupled among the variables of a model.

        Args:
            variables: The trainable variables.
            frozen: The others, which an error names where they are what should be coupled.

        Returns:
            The places of the stacks or, with `groups`, a list of places for each group.

        Raises:
            ValueError: As for a call.
        """
        if self.groups is not None:
            places = [
                [_find(member, variables, frozen) for member in group] for group in self.groups
            ]
            for group in places:
                _check_shapes([variables[i] for i in group])
                self._members(len(group))
            # Known only here where one member is a path and the other the variable itself.
            flat = [i for group in places for i in group]
            for i in flat:
                _check_once(flat.count(i) == 1, variables[i])
            return places
        places = [i for i, variable in enumerate(variables) if is_stack(variable)]
        if not places:
            raise ValueError(_nothing_to_couple([v for v in frozen if is_stack(v)]))
        for i in places:
            self._members(variables[i].shape[0])
        return places

    def _couple(self, stack: tf.Tensor) -> tf.Tensor:
        """Couple the gradients of one group, `[blocks, ...]`."""
        count = stack.shape[0]
        if self.members is None and self.kernel == "uniform":
            mean = tf.reduce_mean(stack, axis=0, keepdims=True)
            return (1 - self.strength) * stack + self.strength * mean
        matrix = tf.constant(self.matrix(count), stack.dtype)
        return tf.tensordot(matrix, stack, axes=1)

    def matrix(self, blocks: int) -> np.ndarray:
        """Return the whole map from gradients to coupled gradients, float64 `[blocks, blocks]`.

        Args:
            blocks: T, the number of blocks of the group.

        Raises:
            ValueError: `members` names no block of so short a group.
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
        """Return the numbers of the blocks of a group that are coupled."""
        coupled = np.arange(blocks)[slice(None) if self.members is None else self.members]
        if not len(coupled):
            raise ValueError(
                f"`members` names none of the {blocks} blocks of a group. "
                f"Received: members={self.members}"
            )
        return coupled

    def get_config(self):
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
    def from_config(cls, config):
        members = config["members"]
        return cls(**{**config, "members": None if members is None else slice(*members)})


def _is_slice_of_numbers(members) -> bool:
    try:
        members.indices(1)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def as_coupling(coupling):
    """Turn what a user gave to `compile` into a callable on gradients and variables, or None.

    Raises:
        ValueError: It is neither None, a number in [0, 1] nor callable.
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


def _check_strength(strength) -> float:
    number = isinstance(strength, int | float | np.floating | np.integer)
    if not number or isinstance(strength, bool) or not 0 <= strength <= 1:
        raise ValueError(f"`strength` must lie in [0, 1]. Received: strength={strength!r}")
    return float(strength)


def _check_groups(groups) -> list[list]:
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
                "A group of `groups` must hold at least two variables. "
                f"Received: {[_name(member) for member in group]}"
            )
        if not any(isinstance(member, str) for member in group):
            _check_shapes(group)
        for member in group:
            key = member if isinstance(member, str) else id(member)
            _check_once(key not in seen, member)
            seen.add(key)
    return [list(group) for group in groups]


def _check_once(once: bool, member) -> None:
    if not once:
        raise ValueError(
            f"`groups` must hold each variable once. Received twice: {_name(member)!r}"
        )


def _nothing_to_couple(frozen_stacks) -> str:
    if frozen_stacks:
        return (
            "There is nothing to couple: all stacks of blocks are frozen, "
            f"{_first_names(frozen_stacks)}. Set `trainable=True` for their layers and compile "
            "again, or train without a coupling."
        )
    return (
        "There is nothing to couple: no variable is a stack of blocks, as those of ResidualStage "
        "and of untied NAIS blocks are. Name the `groups`, or train without a coupling."
    )


def _check_shapes(group):
    shapes = {_name(variable): tuple(variable.shape) for variable in group}
    if len({tuple(variable.shape) for variable in group}) > 1:
        raise ValueError(f"The variables of a group must have one shape. Received: {shapes}")


def _find(member, variables, frozen) -> int:
    def is_member(variable) -> bool:
        return _name(variable) == member if isinstance(member, str) else variable is member

    places = [i for i, variable in enumerate(variables) if is_member(variable)]
    if not places and any(is_member(variable) for variable in frozen):
        raise ValueError(
            f"`groups` names {_name(member)!r}, which is frozen. Set `trainable=True` for its "
            "layer and compile again, or leave it out of `groups`."
        )
    if len(places) != 1:
        raise ValueError(
            f"`groups` names {_name(member)!r}, which {len(places)} of the variables are; the "
            f"first of them are {_first_names(variables)}. Name trainable variables of the model, "
            "each by a path of its own."
        )
    return places[0]


def _first_names(variables) -> str:
    return ", ".join(_name(variable) for variable in variables[:8])


def _name(variable) -> str:
    if isinstance(variable, str):
        return variable
    return getattr(variable, "path", None) or variable.name
