"""The cross-entropy of class numbers, with smoothed labels."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_iterconv")
class SmoothedCrossentropy(keras.losses.Loss):
    """The cross-entropy of logits with labels that are smoothed towards all classes.

    The probability of the label's class is 1 - s + s / C, and that of the others s / C, for C
    classes. `keras.losses.SparseCategoricalCrossentropy` has no label smoothing, and
    `keras.losses.CategoricalCrossentropy` takes no class numbers.

    Args:
        label_smoothing: s, in [0, 1).
        **kwargs: Passed to `keras.losses.Loss`: `reduction`, `name`, `dtype`.

    Call arguments:
        y_true: Class numbers, int `[N, ...]`.
        y_pred: Logits, `[N, ..., classes]`.
    """

    def __init__(self, label_smoothing: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing!r}"
            )
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logarithms = keras.ops.log_softmax(y_pred, axis=-1)
        labels = keras.ops.cast(y_true, "int32")
        if len(labels.shape) == len(logarithms.shape):
            labels = keras.ops.squeeze(labels, -1)
        of_label = keras.ops.take_along_axis(logarithms, labels[..., None], axis=-1)[..., 0]
        of_all = keras.ops.mean(logarithms, axis=-1)
        return -((1 - self.label_smoothing) * of_label + self.label_smoothing * of_all)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def class_crossentropy(label_smoothing: float = 0.0, **kwargs: Any) -> keras.losses.Loss:
    """Return the cross-entropy of logits and class numbers.

    Args:
        label_smoothing: The share of a label's probability that is spread over all classes.
        **kwargs: Passed to `keras.losses.Loss`.
    """
    if label_smoothing:
        return SmoothedCrossentropy(label_smoothing, **kwargs)
    # Its kernel is faster, and repeats what earlier versions computed bit for bit.
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)
