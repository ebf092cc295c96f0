"""The residual function of a pre-activation ResNet, with an optional Lipschitz cap."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv.layers.protocol import ImageSize
from keras_iterconv.layers.residual_function import ResidualFunction
from keras_iterconv.layers.rules.residual_rule import function_bounds, residual_rows
from keras_iterconv.layers.rules.rows import BlockRow


@keras.saving.register_keras_serializable("keras_iterconv")
class ResidualBlock(ResidualFunction):
    """The residual function f = Conv2 . ReLU . BN2 . Conv1 . ReLU . BN1 of one block.

    The layer does not include the skip connection: add it as z + f(z), or as x + f(z). Both
    convolutions are 3x3, zero-padded, of stride 1 and without bias; no normalisation follows the
    second one.

    With a cap mu the layer computes f / c, c = max(L / mu, 1). L is an upper bound of f's
    Lipschitz constant: the product of the operator norms of Conv2 and of BN2 . Conv1 . BN1, which
    is folded into one convolution. In training the norms are those for the batch's statistics;
    each call updates them by one step of power iteration, and gradients flow through them. In
    evaluation the norms are those for the moving statistics, computed by `converge_cap`. Before
    its first call, c is that of the last batch or, for initial weights, an upper bound of c.

    Args:
        filters: The channels of inputs and outputs.
        lipschitz_cap: mu, positive, or None for no cap.
        initial_gamma: The initial value of both gammas, positive.
        synchronized: Whether the replicas of a strategy normalise by the statistics of all their
            samples together, as one device would.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        inputs: z, `[N, height, width, filters]`; with a cap, height and width must be known.
        training: Whether to normalise by the batch's statistics and to update the moving ones.

    Returns:
        f(z), of the inputs' shape, in the layer's compute dtype.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit.

    Example:
        >>> f = ki.ResidualBlock(4, lipschitz_cap=0.5)
        >>> z = np.random.default_rng(0).normal(size=(2, 8, 8, 4))
        >>> ratio = np.linalg.norm(f(z[:1]) - f(z[1:])) / np.linalg.norm(z[0] - z[1])
        >>> bool(ratio <= 0.5)
        True

    Reference:
        Lippl et al. 2024, Eq. 3; He et al. 2016, "Identity mappings in deep residual networks".

    See also:
        `ResidualStage`, a chain of them; `spectral.cap_divisor`; `spectral.conv_operator_norm`.
    """

    def __init__(
        self,
        filters: int,
        lipschitz_cap: float | None = None,
        initial_gamma: float = 1.0,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        super().__init__(filters, None, False, lipschitz_cap, initial_gamma, synchronized, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Images may be integers, which Keras does not cast.
        inputs = tf.cast(inputs, self.compute_dtype)
        (block,) = self.block_values()
        if not (training and self.trainable):
            return self._evaluate(inputs, block)
        value, block = self._train(inputs, block)
        self._store_moving([block])
        return value

    def certificate_rows(self, image: ImageSize) -> list[BlockRow]:
        return residual_rows(self, image, None)

    def lipschitz_gain(
        self,
        gains: Sequence[float],
        norm: str,
        rows: Sequence[BlockRow],
        options: Mapping[str, Any],
    ) -> float:
        (bound,) = function_bounds(self, norm, rows)
        return gains[0] * bound

    def compute_output_spec(
        self, inputs: tf.Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
