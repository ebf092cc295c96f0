"""A small problem for the loops, and what they must give, by plain NumPy on each sample alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import ACTIVATIONS, EulerUpdate
from keras_iterconv.unrolling.euler_update import IDENTITY

SIZE = 4
STEP = 0.5
NUMPY = {
    "relu": (lambda z: np.maximum(z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "identity": (lambda z: z, np.ones_like),
}


class Problem:
    """x + h sigma(x W + u), or, untied, x + h sigma(x W[k] + u D[k] + b[k]).

    In float64. Rows are samples, so that the Jacobian below is of the row's transpose.
    """

    def __init__(self, scales, tied=True, activation="tanh", updates=12, seed=0):
        rng = np.random.default_rng(seed)
        self.tied, self.activation, self.updates = tied, activation, updates
        self.x, self.u = (
            np.asarray(scales)[:, None] * rng.normal(size=(len(scales), SIZE)) for _ in range(2)
        )
        # Symmetric, with eigenvalues that contract: an update has a half to a quarter of the last.
        Q = np.linalg.qr(rng.normal(size=(updates, SIZE, SIZE)))[0]
        W = -(Q * rng.uniform(0.8, 1.5, size=(updates, 1, SIZE))) @ Q.transpose(0, 2, 1)
        # Updates that differ have no common fixed point: what drives them dies away.
        decay = 0.3 ** np.arange(updates)
        D = rng.normal(size=(updates, SIZE, SIZE)) * decay[:, None, None]
        b = 0.003 * rng.normal(size=(updates, SIZE)) * decay[:, None]
        self.weights = [W[0]] if tied else [W, D, b]

    @property
    def operands(self):
        return [self.x, *self.weights, self.u]

    def preactivation(self, x, u, k, weights=None):
        weights = self.weights if weights is None else weights
        if self.tied:
            return x @ weights[0] + u
        W, D, b = (weight[k] for weight in weights)
        return x @ W + u @ D + b

    def alone(self, n, threshold=None, operands=None):
        """Return the last state and the depth of sample n."""
        x, *weights, u = self.operands if operands is None else operands
        x, u = x[n], u[n]
        for k in range(self.updates):
            change = STEP * NUMPY[self.activation][0](self.preactivation(x, u, k, weights))
            x = x + change
            if threshold is not None and np.linalg.norm(change) < threshold:
                break
        return x, k + 1

    def all_alone(self, threshold=None):
        ends = [self.alone(n, threshold) for n in range(len(self.x))]
        return np.stack([x for x, _ in ends]), np.array([depth for _, depth in ends])

    def jacobian(self, n, x, k, slopes=None):
        """Return the Jacobian of update k of sample n at x, and the slopes where not given."""
        if slopes is None:
            slopes = NUMPY[self.activation][1](self.preactivation(x, self.u[n], k))
        W = self.weights[0] if self.tied else self.weights[0][k]
        return np.eye(SIZE) + STEP * slopes[:, None] * W.T, slopes

    def update(self, weights, u, dtype=tf.float64, seen=None):
        """Return the update with its tensors; `seen` collects the batch size of each update."""

        def transfer(state, k, weights, drives):
            if seen is not None:
                seen.append(int(state.shape[0]))
            if not self.tied:
                weights = [weight[k] for weight in weights]
            state, *weights = (tf.cast(z, dtype) for z in (state, *weights))
            if self.tied:
                return state @ weights[0] + drives[0]
            return state @ weights[0] + drives[0] @ weights[1] + weights[2]

        activation = IDENTITY if self.activation == "identity" else ACTIVATIONS[self.activation]
        return EulerUpdate(transfer, activation, STEP, dtype, self.tied, linear=True).bind(
            weights, (u,)
        )


@pytest.fixture
def make_problem():
    return Problem
