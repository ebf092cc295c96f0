"""A lower bound of a Lipschitz constant: the largest ratio that gradient ascent finds."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_choice, check_positive_int
from keras_iterconv.layers.rules.norms import NORMS

STEPS = 40
# Number of outputs whose gradients are tried as the first direction in the infinity norm.
FIRST_OUTPUTS = 16
# Number of random directions by which those outputs are chosen.
DRAWS = 4
# First and last distance of a pair, relative to the norm of x. Distant pairs span several linear
# pieces of the function; close pairs lie in one.
FAR, NEAR = 0.3, 0.01
# Distance by which x moves in one step, relative to the norm of x.
STRIDE = 0.05
# Marks a ratio that is not finite; smaller than any ratio.
_UNDEFINED = -1.0


def largest_ratio(
    function: Callable, x: np.ndarray | tf.Tensor, norm: str = "2", steps: int = STEPS
) -> float:
    """Return the largest ratio of output distance to input distance that gradient ascent finds.

    Each x of the batch starts a pair (x, x + d); d is drawn with a fixed seed. The steps change d
    by the power method for the function's Jacobian, and x along the gradient of the output
    distance. A step that does not increase a pair's ratio is undone, and the next step is half as
    long.

    Args:
        function: Function from `[N, ...]` to `[N, ...]` that TensorFlow can differentiate. Each
            output sample depends only on the input sample of the same index.
        x: Inputs to start from, float `[N, ...]`.
        norm: Norm of each input and output sample, `"2"` or `"infinity"`.
        steps: Number of steps.

    Returns:
        The largest ||f(x) - f(y)|| / ||x - y|| of all pairs tried. It does not exceed the Lipschitz
        constant, except by the rounding error of the function. NaN if no ratio is finite.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> x = tf.random.stateless_normal((4, 10), (0, 0))
        >>> round(largest_ratio(lambda x: 3 * x, x), 3)
        3.0
    """
    norm = check_choice("norm", norm, NORMS)
    steps = check_positive_int("steps", steps)
    x = tf.convert_to_tensor(x)
    if x.shape.rank < 2 or 0 in x.shape or not x.dtype.is_floating:
        raise ValueError(
            "`x` must be a batch of inputs, float [N, ...]. "
            f"Received: x of shape {tuple(x.shape)} and type {x.dtype.name}"
        )
    start = tf.reshape(x, (len(x), -1))
    pairs = _Pairs(function, x, norm)
    d = tf.random.stateless_normal(start.shape, (0, 1), dtype=start.dtype)
    # An input of zeros has norm 0; its scale is 1.
    scale = _norms(start, norm)
    scale = tf.where(scale > 0, scale, tf.ones_like(scale))
    radius = FAR * scale
    if norm == "infinity":
        d = pairs.best_direction(start, d, NEAR * scale)
    best = pairs.measure(start, _of_norm(d, radius, norm))
    size = tf.ones_like(scale)
    shrink = (NEAR / FAR) ** (1 / max(1, 2 * steps // 3))
    for _ in range(steps):
        radius = tf.maximum(radius * shrink, NEAR * scale)
        best, size = pairs.step(best, size, radius, scale)
    found = float(tf.reduce_max(best[2]))
    return float("nan") if found == _UNDEFINED else found


class _Pairs:
    """Pairs of flattened samples, and one step of the ascent on them."""

    def __init__(self, function, x, norm):
        self.function = function
        self.shape = x.shape[1:]
        self.norm = norm
        flat = tf.TensorSpec((x.shape[0], math.prod(self.shape)), x.dtype)
        # Traced once for all steps. A concrete function, because TensorFlow warns about repeated
        # retracing when many ascents run.
        self.measure = tf.function(self._measure).get_concrete_function(flat, flat)

    def _call(self, x):
        values = self.function(tf.reshape(x, (-1, *self.shape)))
        return tf.reshape(values, (x.shape[0], math.prod(values.shape[1:])))

    def _measure(self, x, d):
        """Return x, d, each pair's ratio, and the gradients of its output distance in d and x."""
        with tf.GradientTape() as tape:
            tape.watch([x, d])
            y = x + d
            value_x, value_y = tf.split(self._call(tf.concat([x, y], axis=0)), 2)
            stretch = _norms(value_y - value_x, self.norm)
        in_d, in_x = tape.gradient(stretch, [d, x], unconnected_gradients="zero")
        # The norm of y - x, not of d: x + d is rounded.
        ratio = tf.cast(stretch, x.dtype) / _norms(y - x, self.norm)
        return x, d, tf.where(tf.math.is_finite(ratio), ratio, _UNDEFINED), in_d, in_x

    def step(self, best, size, radius, scale):
        """Return the best pairs after one more step, and the size of the next step."""
        x, d, ratio, in_d, in_x = best
        share = size[:, None]
        turned = (1 - share) * _of_norm(d, 1, self.norm) + share * _dual(in_d, self.norm)
        # Where the sum of directions vanishes, d keeps its direction.
        turned = tf.where(_norms(turned, self.norm)[:, None] > 0, turned, d)
        moved = _of_norm(in_x, STRIDE * size * scale, self.norm)
        following = self.measure(x + moved, _of_norm(turned, radius, self.norm))
        better = following[2] > ratio
        best = tuple(
            tf.where(better[:, None] if new.shape.rank == 2 else better, new, old)
            for new, old in zip(following, best, strict=True)
        )
        return best, tf.where(better, tf.minimum(2 * size, 1), tf.maximum(size / 2, 1e-3))

    def best_direction(self, x, d, radius):
        """Return, for each x, the sign of the gradient of the most sensitive output tried."""

        def gradient(x, output):
            with tf.GradientTape() as tape:
                tape.watch(x)
                values = tf.gather(self._call(x), output, axis=1)
            return tape.gradient(values, x, unconnected_gradients="zero")

        flat = tf.TensorSpec(x.shape, x.dtype)
        gradient = tf.function(gradient).get_concrete_function(flat, tf.TensorSpec((), tf.int32))
        draws = tf.random.stateless_normal((DRAWS, *x.shape), (0, 2), dtype=x.dtype)
        near = x + tf.sign(draws) * radius[:, None]
        values = self._call(tf.concat([x, *tf.unstack(near)], axis=0))
        values = tf.reshape(values, (DRAWS + 1, len(x), -1))
        # Along random signs an output changes by about the 2-norm of its gradient.
        response = tf.reduce_sum(tf.square(values[1:] - values[0]), axis=(0, 1))
        best = tf.zeros(len(x), x.dtype)
        for output in tf.math.top_k(response, min(len(response), FIRST_OUTPUTS)).indices:
            found = gradient(x, output)
            size = tf.reduce_sum(tf.abs(found), axis=1)
            d = tf.where((size > best)[:, None], tf.sign(found), d)
            best = tf.maximum(best, size)
        return d


def _norms(x, norm):
    """Return the norm of each sample, `[N]`, with a gradient of zero at zero."""
    if norm == "infinity":
        return tf.reduce_max(tf.abs(x), axis=1)
    square = tf.reduce_sum(tf.square(x), axis=1)
    zero = square == 0
    return tf.where(zero, square, tf.sqrt(tf.where(zero, tf.ones_like(square), square)))


def _dual(gradient, norm):
    """Return the direction of norm one along which a linear function grows fastest."""
    return tf.sign(gradient) if norm == "infinity" else _of_norm(gradient, 1, norm)


def _of_norm(x, size, norm):
    """Return each sample scaled to the norm `size`; samples of zeros stay zero."""
    norms = _norms(x, norm)
    return x * (size / tf.where(norms > 0, norms, tf.ones_like(norms)))[:, None]
