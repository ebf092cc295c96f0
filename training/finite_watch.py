"""The search for the cause of a loss that is NaN or infinite."""

from typing import TYPE_CHECKING, Any

import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.datasets import batch_numbers
from keras_iterconv.not_finite import find_not_finite_variable

if TYPE_CHECKING:
    from .session import _Session


class FiniteWatch:
    """Keeps the weights from before a step, to find the first value of it that was not finite.

    Args:
        session: The run.
    """

    def __init__(self, session: "_Session"):
        self._session = session
        self._values: list[Any] = []

    def before_step(self) -> None:
        """Keep the weights; TensorFlow copies only those that the step changes."""
        self._values = [tf.convert_to_tensor(v.value) for v in self._session.model.variables]

    def explain(self, epoch: int, step: int) -> str:
        """Return which image of a step was not finite first, in which block and at which update.

        Args:
            epoch: The epoch, counted from 0.
            step: The step of the epoch whose loss is not finite, counted from 0.

        Returns:
            A part of a sentence. The weights from before the step are assigned to the model.
        """
        session = self._session
        for variable, value in zip(session.model.variables, self._values, strict=True):
            variable.assign(value)
        if find_not_finite_variable(session.model.variables) is not None:
            return "the weights are not finite after the previous step"
        images, _ = next(iter(session.training_batches(epoch, step)))
        found = ki.find_not_finite(session.model, images)
        if not found:
            return "all states of its images are finite"
        numbers = batch_numbers(
            session.data.train,
            batch_size=session.settings.batch_size,
            seed=session.settings.seed,
            epoch=epoch,
            step=step,
        )
        sample, block, update = found[0]
        place = "the output"
        if block is not None:
            place = f"update {update} of {block!r}" if update else f"the input of {block!r}"
        return (
            f"image {numbers[sample]} of the training part (number {sample} of its batch) is not "
            f"finite at {place}, one of {len(found)} such images"
        )
