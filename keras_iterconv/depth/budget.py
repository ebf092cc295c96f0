"""Budgets of accuracy and of updates, and the settings that meet them."""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from keras_iterconv.depth.tally import DepthTally

# Margin in standard errors. In simulated searches (12 thresholds, 60 to 5,000 samples, losses of
# 0.005 and 0.02) the loss of as many other samples exceeds the budget by more than its own standard
# error in at most 4 of 100 cases with two, and in at most 8 with one.
_MARGIN = 2


def smallest_loss(samples: int) -> float:
    """Return the smallest loss of accuracy that a number of samples can show, by `DepthTally`."""
    return _MARGIN / (samples + 2)


class Budget:
    """Base class: the largest value of something that thresholds trade for something else.

    Args:
        limit: The largest value.

    Attributes:
        name: The name of the argument.
        compares: Whether the value is a difference to the model's own settings.
        starts_loose: Whether the loosest threshold is the one that meets the budget most easily.
    """

    name: str
    compares: bool
    starts_loose: bool

    def __init__(self, limit: float):
        self.limit = limit

    def value(self, tally: DepthTally) -> tuple[float, float]:
        """Return what is limited, and its standard error."""
        raise NotImplementedError

    def cost(self, tally: DepthTally) -> float:
        """Return what is to be small within the budget."""
        raise NotImplementedError

    def meets(self, tally: DepthTally) -> bool:
        """Return whether a setting is within the budget."""
        # Rounding may not refuse a value that equals the limit.
        return self._with_margin(tally) <= self.limit + 1e-9

    def _with_margin(self, tally: DepthTally) -> float:
        value, error = self.value(tally)
        return value + _MARGIN * error

    def border(self, path: Sequence[DepthTally]) -> tuple[int | None, int | None]:
        """Return the place of the best setting on a path, and that of the next one, which is bad.

        Args:
            path: Settings from the loosest to the strictest threshold.

        Returns:
            Two indices. The first is None where no setting is good, the second where none beyond
            the first is bad.
        """
        raise NotImplementedError

    def unmet(self, tallies: Iterable[DepthTally]) -> str:
        """Return the error message where none of some settings is good: it says the nearest."""
        nearest = min(tallies, key=self._with_margin)
        value, error = self.value(nearest)
        # Rounded up, so that the number in the message can be met.
        least = math.ceil(self._with_margin(nearest) * 1e4) / 1e4
        return (
            f"`{self.name}` must be at least {least:g} for this model and data: the nearest "
            f"thresholds have {value:.4g} ± {error:.2g}, and {_MARGIN} standard errors are kept as "
            "a margin; more data reduce them. "
            f"Received: {self.name}={self.limit:g}"
        )


class _AccuracyBudget(Budget):
    """The largest loss of accuracy, for the fewest updates."""

    name = "accuracy_loss"
    compares = True
    starts_loose = False

    def value(self, tally: DepthTally) -> tuple[float, float]:
        return tally.accuracy_loss, tally.accuracy_loss_standard_error

    def cost(self, tally: DepthTally) -> float:
        return tally.updates

    def border(self, path: Sequence[DepthTally]) -> tuple[int | None, int | None]:
        # More updates can also cost accuracy: the best threshold may not be the strictest.
        place = min(range(len(path)), key=lambda place: (self._with_margin(path[place]), -place))
        if not self.meets(path[place]):
            return None, place
        # A setting beyond a bad one that meets the budget does so by chance.
        while place and self.meets(path[place - 1]):
            place -= 1
        return place, place - 1 if place else None


class _UpdatesBudget(Budget):
    """The largest mean number of updates, for the highest accuracy."""

    name = "mean_updates"
    compares = False
    starts_loose = True

    def value(self, tally: DepthTally) -> tuple[float, float]:
        return tally.updates, tally.updates_standard_error

    def cost(self, tally: DepthTally) -> float:
        return -tally.accuracy

    def border(self, path: Sequence[DepthTally]) -> tuple[int | None, int | None]:
        within = next((n for n, tally in enumerate(path) if not self.meets(tally)), len(path))
        if not within:
            return None, 0
        best = max(tally.accuracy for tally in path[:within])
        least = best - math.sqrt(best * (1 - best) / path[0].samples)
        # More updates are the more cautious choice, unless they cost accuracy.
        place = max(n for n, tally in enumerate(path[:within]) if tally.accuracy >= least)
        return place, place + 1 if place + 1 < len(path) else None


def make_budget(accuracy_loss: float | None, mean_updates: float | None) -> Budget:
    """Return the budget of the one number that is given.

    Raises:
        ValueError: None or both are given, or the number is out of its range.
    """
    if (accuracy_loss is None) == (mean_updates is None):
        raise ValueError(
            "`accuracy_loss` or `mean_updates` must be given, and not both. "
            f"Received: accuracy_loss={accuracy_loss!r}, mean_updates={mean_updates!r}"
        )
    if mean_updates is None:
        if not (_is_number(accuracy_loss) and 0 <= accuracy_loss < 1):
            raise ValueError(
                "`accuracy_loss` must lie in [0, 1), a share of all images: 0.005 for half a "
                f"percentage point. Received: accuracy_loss={accuracy_loss!r}"
            )
        return _AccuracyBudget(float(accuracy_loss))
    if not (_is_number(mean_updates) and 0 < mean_updates < math.inf):
        raise ValueError(
            "`mean_updates` must be a positive number, the mean updates of an image in all blocks. "
            f"Received: mean_updates={mean_updates!r}"
        )
    return _UpdatesBudget(float(mean_updates))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
