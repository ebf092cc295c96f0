"""Counts of updates, statuses and correct predictions of a net, summed over batches."""

import numpy as np

from keras_iterconv.unrolling import Status


class DepthTally:
    """Sums of updates, statuses and correct predictions of a net.

    The sums are integers, so they do not depend on the division into batches.

    Attributes:
        samples: Number of samples.
        right: Number of correct predictions.
    """

    def __init__(self):
        self.samples = self.right = 0
        self._updates = self._at_limit = self._not_finite = np.zeros(0, np.int64)

    def add(self, depth: np.ndarray, status: np.ndarray, right: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            depth: Number of updates, int `[N, blocks]`.
            status: Values of `keras_iterconv.unrolling.Status`, int `[N, blocks]`.
            right: Whether each prediction is correct, bool `[N]`; None without labels.
        """
        if not self.samples:
            self._updates = self._at_limit = self._not_finite = np.zeros(depth.shape[1], np.int64)
        self.samples += len(depth)
        self._updates = self._updates + depth.sum(axis=0, dtype=np.int64)
        self._at_limit = self._at_limit + np.sum(status == Status.MAX_UNROLL, axis=0)
        self._not_finite = self._not_finite + np.sum(status == Status.NOT_FINITE, axis=0)
        if right is not None:
            self.right += int(np.sum(right))

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return self.right / self.samples

    @property
    def updates(self) -> float:
        """The number of updates in all blocks together, mean over samples."""
        return int(self._updates.sum()) / self.samples

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
