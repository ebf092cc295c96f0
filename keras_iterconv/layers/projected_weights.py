"""The weights of an update, of a tied or an untied block, with their projections."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_iterconv.layers.guaranteed_layer import GuaranteedLayer
from keras_iterconv.layers.stacked_variables import draw_stack, mark_stack

# The relative change of a projected weight that a second projection may cause: the rounding error
# of a float32 sum of some thousand numbers. Certificates allow five times as much.
ROUNDING = 2e-6


class ProjectedWeights(GuaranteedLayer):
    """Base class of the layers whose guarantee is the Keras constraints of their weights.

    Attributes:
        tied: Whether all updates share one set of weights.
    """

    tied: bool
    # The number of updates that an untied block has weights for.
    _weights_for: int

    def add_update_weight(
        self,
        name: str,
        shape: Sequence[int | None],
        initializer: Callable[[], keras.initializers.Initializer],
        constraint: keras.constraints.Constraint | None = None,
    ) -> keras.Variable:
        """Add a weight of `shape` to a tied block, of `[max_unroll, *shape]` to an untied one.

        Args:
            name: The name of the weight.
            shape: The shape of the weight of one update.
            initializer: A function without arguments that returns a new Keras initializer.
            constraint: The projection of the weight, also applied to its initial value: a Keras
                constraint, or None. For an untied block it receives the whole stack, so that its
                axes must be counted from the last.

        Returns:
            The weight. It is float32 under every mixed precision policy, since its gradients are
            summed over the updates.
        """

        def initial_value(shape, dtype=None):
            if self.tied:
                value = initializer()(shape, dtype)
            else:
                value = draw_stack(initializer, shape, dtype)
            return value if constraint is None else constraint(value)

        if not self.tied:
            shape = (self._weights_for, *shape)
        weight = self.add_weight(
            shape=shape,
            initializer=initial_value,
            constraint=constraint,
            autocast=False,
            name=name,
        )
        if not self.tied:
            mark_stack(weight)
        return weight

    def guaranteed_variables(self) -> list[keras.Variable]:
        return [weight for weight in self.weights if weight.constraint is not None]

    def _restore_guarantee(self):
        # In the order of creation: the projection of the kernel C reads the projected delta.
        for weight in self.guaranteed_variables():
            projected = weight.constraint(weight)
            if not np.allclose(weight.numpy(), projected, rtol=ROUNDING, atol=0, equal_nan=True):
                weight.assign(projected)
