"""A learning rate that rises and falls, here so that every program can load a file that has it."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_iterconv")
class TriangleSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly to a peak, and falls linearly to the end.

    Args:
        peak: The largest learning rate.
        steps: Number of steps.
        peak_share: The share of the steps before the peak.
        start: The learning rate of the first step, as a share of the peak.
        end: The learning rate after the last step, as a share of the peak.

    Reference:
        Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        peak_share: float = 0.23,
        start: float = 0.2,
        end: float = 0.07,
    ):
        self.peak, self.steps, self.peak_share = peak, steps, peak_share
        self.start, self.end = start, end

    def __call__(self, step: Any) -> Any:
        done = keras.ops.cast(step, "float32") / self.steps
        rising = self.start + (1 - self.start) * done / self.peak_share
        falling = 1 - (1 - self.end) * (done - self.peak_share) / (1 - self.peak_share)
        return self.peak * keras.ops.maximum(keras.ops.minimum(rising, falling), self.end)

    def get_config(self) -> dict[str, Any]:
        names = ("peak", "steps", "peak_share", "start", "end")
        return {name: getattr(self, name) for name in names}
