"""What a net did on a data set, summed batch by batch."""

import numpy as np

from keras_iterconv.unrolling import Status


class DepthTally:
    """Updates, statuses and correct predictions of a net, summed as whole numbers.

    Whole numbers, so that the sums do not depend on how the samples are cut into batches.

    Attributes:
        samples: The number of samples.
        right: How many of them were predicted correctly.
    """

    def __init__(self):
        self.samples = self.right = 0
        self._updates = self._at_limit = self._not_finite = np.zeros(0, np.int64)

    def add(self, depth: np.ndarray, status: np.ndarray, right: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            depth: The updates made, int `[N, blocks]`.
            status: A `keras_iterconv.unrolling.Status` each, int `[N, blocks]`.
            right: Which predictions are correct, bool `[N]`; None where none were made.
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
        """The mean over samples of the updates made in all blocks together."""
        return int(self._updates.sum()) / self.samples

    @property
    def share_at_limit(self) -> float:
        """The share of pairs of sample and block that made `max_unroll` updates."""
        return int(self._at_limit.sum()) / (self.samples * len(self._at_limit))

    @property
    def share_not_finite(self) -> float:
        """The share of pairs of sample and block whose state was not finite."""
        return int(self._not_finite.sum()) / (self.samples * len(self._not_finite))

    @property
    def updates_by_block(self) -> np.ndarray:
        """The mean updates of each block, `[blocks]`."""
        return self._updates / self.samples

    @property
    def share_at_limit_by_block(self) -> np.ndarray:
        """The share of samples that made `max_unroll` updates, for each block, `[blocks]`."""
        return self._at_limit / self.samples
