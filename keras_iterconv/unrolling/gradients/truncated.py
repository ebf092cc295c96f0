"""The gradient of each sample's last updates."""

from keras_iterconv.unrolling.gradients.exact import walk_back
from keras_iterconv.unrolling.gradients.mode import GradientMode


def truncated_mode(updates: int) -> GradientMode:
    """Return the mode that goes back through the last `updates` updates of each sample.

    The state before them counts as a constant; a sample of no more updates has its exact gradient.
    """
    return GradientMode(
        name="truncated",
        exact=False,
        keeps_tensors=True,
        needs=(),
        backward=lambda update, run, trajectory, g, live: walk_back(
            update, trajectory, g, live, updates
        ),
    )
