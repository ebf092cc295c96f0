"""Counts of updates, statuses and correct predictions of a net, summed over batches."""

import math

import numpy as np

from keras_iterconv.unrolling import Status


class DepthTally:
    """Sums of updates, statuses and correct predictions of a net.

    The sums are integers, so they do not depend on the division into batches.

    Attributes:
        samples: Number of samples.
        right: Number of correct predictions.
        lost: Number of wrong predictions where that of a reference is correct.
        gained: Number of correct predictions where that of a reference is wrong.
    """

    def __init__(self):
        self.samples = self.right = self.lost = self.gained = self._compared = self._squares = 0
        self._updates = self._at_limit = self._not_finite = np.zeros(0, np.int64)

    def add(
        self,
        depth: np.ndarray,
        status: np.ndarray,
        right: np.ndarray | None = None,
        reference: np.ndarray | None = None,
    ) -> None:
        """Add a batch.

        Args:
            depth: Number of updates, int `[N, blocks]`.
            status: Values of `keras_iterconv.unrolling.Status`, int `[N, blocks]`.
            right: Whether each prediction is correct, bool `[N]`; None without labels.
            reference: The same of the net to which this one is compared; None without one.
        """
        if not self.samples:
            self._updates = self._at_limit = self._not_finite = np.zeros(depth.shape[1], np.int64)
        self.samples += len(depth)
        # Integers of Python, since the squares of many updates do not fit into 64 bits.
        self._squares += sum(n * n for n in depth.sum(axis=1, dtype=np.int64).tolist())
        self._updates = self._updates + depth.sum(axis=0, dtype=np.int64)
        self._at_limit = self._at_limit + np.sum(status == Status.MAX_UNROLL, axis=0)
        self._not_finite = self._not_finite + np.sum(status == Status.NOT_FINITE, axis=0)
        if right is not None:
            self.right += int(np.sum(right))
        if right is not None and reference is not None:
            self._compared += len(right)
            self.lost += int(np.sum(reference & ~right))
            self.gained += int(np.sum(right & ~reference))

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return self.right / self.samples

    @property
    def accuracy_loss(self) -> float:
        """The accuracy of the reference minus this one."""
        return (self.lost - self.gained) / self.samples

    @property
    def accuracy_loss_standard_error(self) -> float:
        """The standard error of `accuracy_loss`, of the differences sample by sample.

        0 for the reference itself, which is compared with none: its loss is exactly 0. Otherwise
        half a sample is added to each of the four pairs of right and wrong (Agresti and Min, 2005),
        since no difference among a few samples does not mean that there is none among others.
        """
        if not self._compared:
            return 0.0
        lost, gained, samples = self.lost + 0.5, self.gained + 0.5, self._compared + 2
        loss = (lost - gained) / samples
        return math.sqrt(((lost + gained) / samples - loss**2) / samples)

    @property
    def updates(self) -> float:
        """The number of updates in all blocks together, mean over samples."""
        return int(self._updates.sum()) / self.samples

    @property
    def updates_standard_error(self) -> float:
        """The standard error of `updates`: their standard deviation over the root of samples."""
        total, n = int(self._updates.sum()), self.samples
        return math.sqrt((n * self._squares - total * total) / n**3)

    @property
    def share_at_limit(self) -> float:
        """The share of (sample, block) pairs that did not converge within `max_unroll`."""
        return int(self._at_limit.sum()) / (self.samples * len(self._at_limit))

    @property
    def share_not_finite(self) -> float:
        """The share of (sample, block) pairs whose state was not finite."""
        return int(self._not_finite.sum()) / (self.samples * len(self._not_finite))

    @property
    def updates_by_block(self) -> np.ndarray:
        """The mean number of updates of each block, `[blocks]`."""
        return self._updates / self.samples

    @property
    def share_at_limit_by_block(self) -> np.ndarray:
        """The share of samples that did not converge in each block, `[blocks]`."""
        return self._at_limit / self.samples
