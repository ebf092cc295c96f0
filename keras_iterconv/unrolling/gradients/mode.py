"""The description of a gradient mode."""

from collections.abc import Callable
from typing import Any, NamedTuple

# Properties of an `Update` that some mode requires, each with the reason, for error messages.
NEEDS = {
    "linear": "a pre-activation that is linear in the state, since it uses one slope for many "
    "updates",
    "tied": "`tied=True`, since untied updates have no common fixed point",
    "two_sided": '`activation="tanh"`, since the linear system of the implicit gradient is '
    "singular where ReLUs are inactive",
    "without_settling": "`settling=0`, since it takes all gradients at the last state and has none "
    "of the last update",
}


class GradientMode(NamedTuple):
    """One way to run the backward pass of a loop.

    Attributes:
        name: The value of the argument `gradient` that selects this mode.
        exact: Whether the result is the gradient of the updates that were made.
        keeps_tensors: Whether the forward pass keeps a tensor for each update.
        needs: The properties of an update that this mode requires, keys of `NEEDS`.
        backward: A function from `(update, run, trajectory, g, live)` to the gradients in the
            first state, the weights and the drives. Its arguments are the update with its drives
            computed, the loop, the end of the loop, the upstream gradient `[N, ...]`, and which
            samples have an upstream gradient, bool `[N]`.
    """

    name: str
    exact: bool
    keeps_tensors: bool
    needs: tuple[str, ...]
    backward: Callable

    def fits(self, update: Any) -> bool:
        """Return whether an update, or a block, has the properties that this mode needs."""
        return all(getattr(update, need) for need in self.needs)

    def check(self, update: Any) -> None:
        """Raise `ValueError` where an update, or a block, lacks a property that this mode needs."""
        missing = [NEEDS[need] for need in self.needs if not getattr(update, need)]
        if missing:
            raise ValueError(
                f'`gradient="{self.name}"` needs {"; and ".join(missing)}. Use '
                f'`gradient="recompute"`, which works for every update. '
                f"Received: gradient={self.name!r}"
            )
