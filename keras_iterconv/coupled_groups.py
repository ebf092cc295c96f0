"""The groups of variables that a coupling blends: given by hand, by a chain or by a pattern."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv.chains import Chain


def check_groups(groups: Any) -> str | list[list]:
    """Return the groups of a coupling, checked: a pattern, or lists of variables and paths.

    Args:
        groups: A list of groups, each a list of variables or of their paths, or a chain; one chain;
            or a regular expression on paths.

    Raises:
        ValueError: It is none of these; or a group has only one variable, different shapes, or a
            variable of another group.
    """
    if isinstance(groups, str):
        return _check_pattern(groups)
    items = [groups] if isinstance(groups, Chain) else groups
    if not isinstance(items, Sequence) or not len(items):
        raise ValueError(_not_groups(groups))
    lists = []
    for item in items:
        if isinstance(item, str) or not isinstance(item, Sequence | Chain):
            raise ValueError(_not_groups(groups))
        lists.extend(item.weight_groups() if isinstance(item, Chain) else [list(item)])
    _check_members(lists)
    return lists


def _not_groups(groups: Any) -> str:
    return (
        "`groups` must be a list of lists of variables or of their paths, a `Chain`, a list of "
        "chains, or a regular expression on paths whose first group is the block, such as "
        f'r"block(\\d+)_.*". Received: groups={groups!r}'
    )


def _check_pattern(pattern: str) -> str:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`groups` must be a regular expression: {error}. Received: groups={pattern!r}"
        ) from error
    if not expression.groups:
        raise ValueError(_not_groups(pattern))
    return pattern


def _check_members(groups: list[list]) -> None:
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
                f"Received: {[variable_name(member) for member in group]}"
            )
        if not any(isinstance(member, str) for member in group):
            _check_shapes(group)
        for member in group:
            key = member if isinstance(member, str) else id(member)
            _check_once(key not in seen, member)
            seen.add(key)


def _check_once(once: bool, member: Any) -> None:
    if not once:
        raise ValueError(
            f"`groups` must hold each variable once. Received twice: {variable_name(member)!r}"
        )


def find_groups(groups: str | list[list], variables: Sequence, frozen: Sequence) -> list[list[int]]:
    """Return the indices in `variables` of each group.

    Args:
        groups: The groups, as `check_groups` returns them.
        variables: The trainable variables.
        frozen: The other variables. An error message names those that should be coupled.

    Raises:
        ValueError: A group names a variable that is not there, or has different shapes; or a
            weight that matches the pattern has no counterpart in another block.
    """
    if isinstance(groups, str):
        found = _match(groups, variables)
    else:
        found = [[_find(member, variables, frozen) for member in group] for group in groups]
    for group in found:
        _check_shapes([variables[i] for i in group])
    # A path and a variable can only be compared here, where the paths are resolved.
    all_indices = [i for group in found for i in group]
    for i in all_indices:
        _check_once(all_indices.count(i) == 1, variables[i])
    return found


def _match(pattern: str, variables: Sequence) -> list[list[int]]:
    """Return the groups of a pattern: weights that agree in all but the block."""
    expression = re.compile(pattern)
    # By block, the index of each weight; a weight is what the other groups of the pattern match,
    # and its number among the weights of the block for which they match the same.
    blocks: dict[str, dict[tuple, int]] = {}
    for i, variable in enumerate(variables):
        if match := expression.fullmatch(variable_name(variable)):
            block, *rest = match.groups()
            weights = blocks.setdefault(block, {})
            number = sum(key[:-1] == tuple(rest) for key in weights)
            weights[*rest, number] = i
    if len(blocks) < 2:
        raise ValueError(
            "`groups` must match the weights of at least two blocks, which differ in the first "
            f"group. Received: groups={pattern!r}, which matches blocks {list(blocks)} of the "
            f"trainable variables; the first of these are {first_names(variables)}"
        )
    if all(str(block).isdecimal() for block in blocks):
        blocks = dict(sorted(blocks.items(), key=lambda item: int(item[0])))
    for (block, weights), (other, others) in itertools.permutations(blocks.items(), 2):
        alone = [variable_name(variables[i]) for key, i in weights.items() if key not in others]
        if alone:
            raise ValueError(
                "`groups` must match the same weights in each block. Received: "
                f"groups={pattern!r}, which matches {alone[0]!r} of block {block!r} and nothing in "
                f"its place of block {other!r}; frozen weights do not count"
            )
    return [[weights[key] for weights in blocks.values()] for key in next(iter(blocks.values()))]


def _check_shapes(group):
    shapes = {variable_name(variable): tuple(variable.shape) for variable in group}
    if len({tuple(variable.shape) for variable in group}) > 1:
        raise ValueError(
            f"The variables of each group of `groups` must have one shape. Received: {shapes}"
        )


def _find(member: Any, variables: Sequence, frozen: Sequence) -> int:
    def is_member(variable: Any) -> bool:
        return variable_name(variable) == member if isinstance(member, str) else variable is member

    variable_indices = [i for i, variable in enumerate(variables) if is_member(variable)]
    if not variable_indices and any(is_member(variable) for variable in frozen):
        raise ValueError(
            f"`groups` names {variable_name(member)!r}, which is frozen. Set `trainable=True` for "
            "its layer and compile again, or leave it out of `groups`."
        )
    if len(variable_indices) != 1:
        raise ValueError(
            f"`groups` names {variable_name(member)!r}, which matches {len(variable_indices)} of "
            f"the trainable variables; the first of these are {first_names(variables)}. Name "
            "trainable variables of the model, each by a path that no other variable has."
        )
    return variable_indices[0]


def first_names(variables: Sequence) -> str:
    """Return the first names of variables, for an error message."""
    return ", ".join(variable_name(variable) for variable in variables[:8])


def variable_name(variable: Any) -> str:
    """Return the path of a Keras variable, the name of another, or the path that is given."""
    if isinstance(variable, str):
        return variable
    return getattr(variable, "path", None) or variable.name
