"""A callback that changes the number of updates of a net while it trains."""

from collections.abc import Mapping

import keras

from keras_iterconv._support.checks import check_positive_int
from keras_iterconv.depth.depth_settings import (
    adjustable_blocks,
    apply_settings,
    read_settings,
    set_depth,
)


class UnrollSchedule(keras.callbacks.Callback):
    """Callback that sets `max_unroll` of all NAIS blocks of a net, from given epochs on.

    The weights of a tied block do not depend on its number of updates: a net can be trained with
    few updates first, which cost less time, and with all of them at the end. No function is traced
    again. Validations within `fit`, and models that other callbacks save, have the number of their
    epoch. After `fit` the model has the number of the last epoch that was trained.

    A callback that keeps the best of all epochs compares nets of different depth with each other:
    limit it to the epochs of the last number, those from `start_of(epochs - 1)` on.

    Args:
        schedule: Number of updates of a block, or largest number with a threshold, by the epoch
            from which it holds. Epochs are counted from 0, as Keras does; the first one is 0, and
            they rise.

    Raises:
        ValueError: The schedule is empty, does not start at 0 or does not rise, or has a number of
            updates below 1; or, when training starts, the model has no block whose depth can be
            set, or an untied block with weights for fewer updates.

    Example:
        >>> block = ki.NAISDense(8, max_unroll=10)
        >>> model = keras.Sequential([keras.Input((4,)), block, keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> schedule = ki.UnrollSchedule({0: 1, 1: 10})
        >>> data = np.ones((8, 4)), np.zeros((8, 2))
        >>> history = model.fit(*data, epochs=2, verbose=0, callbacks=[schedule])
        >>> block.max_unroll  # that of the last epoch
        10

    See also:
        `set_depth`; `DepthLogger`.
    """

    def __init__(self, schedule: Mapping[int, int]):
        super().__init__()
        if not isinstance(schedule, Mapping) or not schedule:
            raise ValueError(
                "`schedule` must be a dict from epochs to numbers of updates, for example {0: 1, "
                f"12: 10}}. Received: schedule={schedule!r}"
            )
        first, *later = schedule
        if isinstance(first, bool) or first != 0:
            raise ValueError(
                f"`schedule` must begin with epoch 0, the first one. Received: schedule={schedule}"
            )
        for epoch in later:
            check_positive_int("schedule", epoch)
        if list(schedule) != sorted(schedule):
            raise ValueError(
                f"`schedule` must name its epochs in rising order. Received: schedule={schedule}"
            )
        self.schedule = {
            int(epoch): check_positive_int("max_unroll", updates)
            for epoch, updates in schedule.items()
        }

    def start_of(self, epoch: int) -> int:
        """Return the first epoch of those that have the number of updates of a given epoch.

        Args:
            epoch: Number of an epoch, from 0.

        Example:
            >>> ki.UnrollSchedule({0: 1, 12: 3, 15: 10}).start_of(13)
            12

        See also:
            `UnrollSchedule.max_unroll_of`.
        """
        return max(start for start in self.schedule if start <= epoch)

    def max_unroll_of(self, epoch: int) -> int:
        """Return the number of updates of an epoch.

        Args:
            epoch: Number of an epoch, from 0.

        Example:
            >>> ki.UnrollSchedule({0: 1, 12: 3, 15: 10}).max_unroll_of(13)
            3

        See also:
            `UnrollSchedule.start_of`.
        """
        return self.schedule[self.start_of(epoch)]

    def check(self, model: keras.Model) -> None:
        """Check that a model's blocks can make all numbers of updates of the schedule.

        Args:
            model: The model to train.

        Raises:
            ValueError: They cannot. The model does not change.
        """
        blocks = adjustable_blocks(model)
        before = read_settings(blocks)
        most = max(self.schedule.values())
        try:
            apply_settings(blocks, [block._replace(max_unroll=most) for block in before])
        finally:
            apply_settings(blocks, before)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.check(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        set_depth(self.model, max_unroll=self.max_unroll_of(epoch))
