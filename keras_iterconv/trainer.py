"""The model class whose training step leaves room for the coupling of gradients."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("keras_iterconv")
class IterativeModel(keras.Model):
    """A functional `keras.Model` whose gradients can be coupled before the optimizer.

    It trains like any Keras model: `compile`, `fit`, callbacks, `.keras` files, strategies of
    several replicas. A step takes the raw gradients, hands them to the coupling, and gives the
    result to the optimizer, which applies momentum, weight decay and, last, the projections that
    the layers declared as weight constraints.

    Args:
        inputs: Symbolic inputs, as for `keras.Model`.
        outputs: Symbolic outputs.
        **kwargs: Passed to `keras.Model`.

    Reference:
        Lippl et al. 2024, Eq. 1 and 2 (where the coupling acts).
    """

    coupling = None

    def compile(self, *args, coupling=None, **kwargs):
        """Configure the model for training.

        Args:
            *args: As for `keras.Model.compile`.
            coupling: None, or a callable `(gradients, variables) -> gradients` over lists of equal
                length. It sees the raw gradients of one replica, scaled where the optimizer
                scales the loss, so it must be linear in them.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: `coupling` is not callable.
        """
        if coupling is not None and not callable(coupling):
            raise ValueError(
                "`coupling` must be None or a callable (gradients, variables) -> gradients. "
                f"Received: coupling={coupling!r}"
            )
        super().compile(*args, **kwargs)
        self.coupling = coupling

    def train_step(self, data):
        """Take one training step; Keras calls it on each replica."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if self.coupling is not None:
            gradients = self.coupling(gradients, variables)
        self.optimizer.apply(gradients, variables)

        # Keras divides the loss by the number of replicas, so that the sum of their gradients is
        # the gradient of the mean; what is reported is the loss itself.
        loss *= self.distribute_strategy.num_replicas_in_sync
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:  # empty for a model that was not compiled, which must load as such
            config["coupling"] = keras.saving.serialize_keras_object(self.coupling)
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)
