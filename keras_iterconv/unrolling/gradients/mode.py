"""What a gradient mode is."""

from collections.abc import Callable
from typing import NamedTuple

# What an update must be for some mode: the property of `Update`, and why.
NEEDS = {
    "linear": "a pre-activation that is linear in the state, since it takes one slope for many "
    "updates",
    "tied": "`tied=True`, since untied updates have no fixed point",
    "two_sided": '`activation="tanh"`, since where ReLUs are inactive the fixed point\'s equation '
    "has no solution",
}


class GradientMode(NamedTuple):
    """One way to run the backward pass of a loop.

    Attributes:
        name: The value of `gradient`.
        summary: What it does, for help texts.
        exact: Whether it is the gradient of the updates that were made.
        keeps_values: Whether the forward pass keeps a tensor for each update.
        needs: The properties of an update that it relies on, keys of `NEEDS`.
        backward: Maps `(update, run, trajectory, g, live)` to the gradients of the first state,
            the weights and the drives: the update with its drives, the loop, its end, the upstream
            gradient `[N, ...]`, and which samples have one, bool `[N]`.
    """

    name: str
    summary: str
    exact: bool
    keeps_values: bool
    needs: tuple[str, ...]
    backward: Callable

    def fits(self, update) -> bool:
        """Return whether an update, or a block, has the properties that this mode needs."""
        return all(getattr(update, need) for need in self.needs)

    def check(self, update) -> None:
        """Raise `ValueError` where an update, or a block, lacks a property that this mode needs."""
        missing = [NEEDS[need] for need in self.needs if not getattr(update, need)]
        if missing:
            raise ValueError(
                f'`gradient="{self.name}"` needs {"; and ".join(missing)}. Take "recompute", which '
                f"needs nothing. Received: gradient={self.name!r}"
            )
