"""A net that solves longer problems by more updates: it is trained to converge from any state."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_channels_last, check_positive_int
from keras_iterconv.layers import Iterate
from keras_iterconv.trainer import IterativeModel

# The standardised value of pixels behind the end of a sequence.
PADDING = -16.0


@keras.saving.register_keras_serializable("keras_iterconv")
class ProgressiveIterate(Iterate):
    """An `Iterate` that is trained to go on from states of every depth.

    In training, half of the samples of a batch make `training_unroll` updates. The others first
    make a random number of updates, whose last state counts as a constant, and then a random number
    with a gradient, together at most `training_unroll`. So the updates must improve any state that
    they can reach, and not count their own number. `settling` acts on the samples with all updates.
    Outside of training it is an `Iterate`.

    Reference:
        Bansal et al. 2022, "End-to-end algorithm synthesis with recurrent networks: logical
        extrapolation without overthinking" (their incremental training).
    """

    def __init__(
        self, *args: Any, training_unroll: int = 24, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        if self.returns:
            raise ValueError(
                "`ProgressiveIterate` returns its state alone, since half of a batch makes other "
                f"updates in training. Received: returns={self.returns}"
            )
        self.training_unroll = check_positive_int("training_unroll", training_unroll)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        mask: Any = None,
        return_depth: bool = False,
    ) -> Any:
        if not training or return_depth:
            return super().call(inputs, training, mask, return_depth)
        first = tf.shape(inputs)[0] // 2
        masks = (None, None) if mask is None else (mask[:first], mask[first:])
        start = self.make_initial_state(inputs)
        whole = self._run_fixed(
            start[:first], inputs[:first], masks[0], self.training_unroll, self.settling
        )
        before = self._draw(0, self.training_unroll)
        after = self._draw(1, self.training_unroll - before + 1)
        state = self._run_fixed(start[first:], inputs[first:], masks[1], before)
        state = self._run_fixed(tf.stop_gradient(state), inputs[first:], masks[1], after)
        return tf.concat([whole, state], axis=0)

    def _run_fixed(self, state, inputs, mask, updates, settling=0.0):
        """Return the state after some updates."""
        return self._call.run(state, inputs, mask, True, updates, None, settling)[0].state

    def _draw(self, low, high):
        """Return a random integer from `low` to `high` - 1."""
        share = keras.random.uniform((), seed=self.generator)
        return low + tf.cast(share * tf.cast(high - low, share.dtype), tf.int32)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "training_unroll": self.training_unroll,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("keras_iterconv")
class MaskPadding(keras.layers.Layer):
    """Mask the positions of a sequence whose numbers are below half of `PADDING`."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.where(inputs < PADDING / 2, tf.zeros_like(inputs), inputs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return keras.ops.all(keras.ops.logical_not(inputs < PADDING / 2), axis=-1)


@keras.saving.register_keras_serializable("keras_iterconv")
class SequenceConvolution(keras.layers.Conv1D):
    """A convolution for which masked positions are zero, as those beyond the ends are."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, mask: Any = None) -> tf.Tensor:
        if mask is not None:
            # Faster than a selection. A NaN reaches the whole sample either way.
            inputs *= tf.cast(mask, inputs.dtype)[..., tf.newaxis]
        return super().call(inputs)


def deep_thinking_net(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    filters: int = 64,
    training_unroll: int = 24,
    max_unroll: int = 1000,
    threshold: float | None = 1.0,
    settling: float = 1.0,
    name: str = "deep_thinking",
) -> IterativeModel:
    """Return a net of one iterated block over a sequence, with a class for each position.

    An update joins the state with the input, and passes them through five convolutions of three
    positions: one, and two residual blocks of two. So each update carries information over at most
    five positions, and a longer sequence needs more updates. The pixels of an image are a sequence,
    row by row. The net takes sequences of any length. In a batch of several lengths, the pixels
    behind the end of a shorter sequence are `PADDING`: they are masked, and change nothing.

    Args:
        input_shape: `(height, width, channels)`; the height is not read. A sequence has width 1.
        num_classes: Number of classes of a position.
        filters: Number of channels of the state.
        training_unroll: Number of updates in training, which must be enough for its sequences.
        max_unroll: Largest number of updates outside of training.
        threshold: 2-norm of an update below which a sequence stops; None for `max_unroll` updates.
        settling: Weight of the loss that makes the state come to rest, as of `Iterate`. Without it
            the right answers come, but the state may grow from update to update.
        name: Name of the model.

    Returns:
        An `IterativeModel` from images, float `[N, height, width, channels]`, to logits `[N, height
        * width, num_classes]`.

    Reference:
        Bansal et al. 2022, as for `ProgressiveIterate`; the net is a small one of this kind.
    """
    check_channels_last()
    check_positive_int("filters", filters)
    _, width, channels = input_shape
    inputs = keras.Input((None, width, channels), name="image")
    pixels = keras.layers.Reshape((-1, channels), name="sequence")(inputs)
    pixels = MaskPadding(name="padding")(pixels)
    iterate = ProgressiveIterate(
        _update(filters, channels),
        max_unroll,
        stop=threshold,
        training_unroll=training_unroll,
        initial_state=_convolution(filters, "start", activation="relu"),
        settling=settling,
        name="thinking",
    )
    state = iterate(pixels)
    hidden = _convolution(filters // 2, "read", activation="relu")(state)
    return IterativeModel(inputs, _convolution(num_classes, "logits")(hidden), name=name)


def _convolution(filters: int, name: str, **options: Any) -> keras.layers.Layer:
    # Larger initial weights make the state grow from update to update, beyond all numbers.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return SequenceConvolution(
        filters,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
        **options,
    )


def _update(filters: int, channels: int) -> keras.Model:
    """Return the update as a model of state and input."""
    state = keras.Input((None, filters), name="state")
    inputs = keras.Input((None, channels), name="pixels")
    x = keras.layers.Concatenate(name="recall")([state, inputs])
    x = keras.layers.ReLU(name="recall_relu")(_convolution(filters, "recall_convolution")(x))
    for block in (1, 2):
        y = _convolution(filters, f"block{block}_convolution1", activation="relu")(x)
        y = _convolution(filters, f"block{block}_convolution2")(y)
        x = keras.layers.Add(name=f"block{block}_add")([x, y])
        x = keras.layers.ReLU(name=f"block{block}_relu")(x)
    return keras.Model([state, inputs], x, name="update")
