"""A depthwise-separable block of a user's own; docs/extending.md shows the same code."""

import keras
import tensorflow as tf

from keras_iterconv.layers import BlockRow, IteratedBlock, NoBoundError


class AbsoluteSum(keras.constraints.Constraint):
    """Scale a weight where the sum of its absolute values over some axes exceeds a limit."""

    def __init__(self, limit, axes):
        self.limit, self.axes = limit, axes

    def __call__(self, weight):
        weight = tf.convert_to_tensor(weight)
        total = tf.reduce_sum(tf.abs(weight), axis=self.axes, keepdims=True)
        return weight * tf.minimum(1.0, self.limit / tf.maximum(total, 1e-12))


def separable_transfer(data_format, tied):
    def transfer(state, k, weights, drives):
        weights = weights if tied else [weight[k] for weight in weights]
        depthwise, pointwise, bias = (tf.cast(weight, state.dtype) for weight in weights)
        y = tf.nn.depthwise_conv2d(state, depthwise, [1] * 4, "SAME", data_format=data_format)
        y = tf.nn.conv2d(y, pointwise, 1, "SAME", data_format=data_format)
        return tf.nn.bias_add(y, bias, data_format=data_format) + drives[0] - state

    return transfer


# Made once: blocks with the same transfer share a graph.
TRANSFERS = {
    (data_format, tied): separable_transfer(data_format, tied)
    for data_format in ("NHWC", "NCHW")
    for tied in (True, False)
}


@keras.saving.register_keras_serializable("my_package")
class SeparableBlock(IteratedBlock):
    """Repeat x + h tanh(P D x + b + u - x), with a depthwise D and a pointwise P."""

    linear = True
    channels_first = True
    bound_norm = "infinity"

    def __init__(self, max_unroll=10, threshold=None, step_size=0.5, margin=0.05, **kwargs):
        kwargs.setdefault("activation", "tanh")
        super().__init__(max_unroll, threshold, step_size, **kwargs)
        self.margin = margin
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.check_inputs(input_shape)
        channels, glorot = input_shape[-1], keras.initializers.GlorotUniform
        self.depthwise = self.add_update_weight(
            "depthwise", (3, 3, channels, 1), glorot, AbsoluteSum(1.0, (-4, -3))
        )
        self.pointwise = self.add_update_weight(
            "pointwise",
            (1, 1, channels, channels),
            glorot,
            AbsoluteSum(1 - self.margin, (-4, -3, -2)),
        )
        self.bias = self.add_update_weight("bias", (channels,), keras.initializers.Zeros)
        self.built = True

    def build_update(self, inputs, data_format="NHWC"):
        weights = [tf.convert_to_tensor(w) for w in (self.depthwise, self.pointwise, self.bias)]
        update = self.euler_update(TRANSFERS[data_format, self.tied])
        return update.bind(weights, (inputs,))

    def factor(self):
        """Return the largest row sum of |I + h (P D - I)|, a Lipschitz bound of each update."""
        taps = tf.reduce_sum(tf.abs(self.depthwise), axis=(-4, -3, -1))
        pointwise = tf.abs(self.pointwise)[..., 0, 0, :, :]
        sums = tf.linalg.matvec(pointwise, taps, transpose_a=True)
        return float(1 - self.step_size + self.step_size * tf.reduce_max(sums))

    def certificate_rows(self, image):
        factor, guarantee, reason = self.factor(), None, None
        if self.tied:
            guarantee = "the state converges to one fixed point for each input"
            reason = None if factor < 1 else "a row sum is not below 1"
        else:
            reason = "untied updates need not share a fixed point"
        return [
            BlockRow(
                name=self.name,
                kind="SeparableBlock",
                norm="infinity",
                factor=factor,
                guarantee=guarantee,
                reference="row sums below 1",
                holds=reason is None,
                reason=reason,
            )
        ]

    def lipschitz_gain(self, gains, norm, rows, options):
        if norm != "infinity":
            raise NoBoundError(f"{self.name!r} has a bound in the infinity norm alone")
        gain = 1.0 if self.initial_state == "input" else 0.0
        for _ in range(self.max_unroll):
            gain = max(gain, rows[0].factor * gain + self.step_size)
        return gain * gains[0]

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}
