"""The model class that couples gradients in training and keeps caps and projections valid."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.checks import check_jit_compile
from keras_iterconv._support.empty_batches import layer_on_any_batch
from keras_iterconv._support.graph_function import shared_functions
from keras_iterconv._support.keras_graph import without_refused
from keras_iterconv._support.private_keras import (
    FunctionalOrSubclassed,
    graph_of,
    keeps_default,
    layers_within,
)
from keras_iterconv._support.replicas import (
    clips,
    count_samples,
    on_several_replicas,
    reducible,
    share_of_loss,
    total_on_first_replica,
)
from keras_iterconv.coupling import GradientCoupling, as_coupling
from keras_iterconv.guarantees import ConvergeCaps, RestoreGuarantees, with_callbacks
from keras_iterconv.layers.guaranteed_layer import guaranteed_layers
from keras_iterconv.layers.protocol import is_block
from keras_iterconv.made_blocks import depth_settings, set_depth_settings
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.spectral.power_iteration import TOLERANCE


@keras.saving.register_keras_serializable("keras_iterconv")
class IterativeModel(keras.Model, metaclass=FunctionalOrSubclassed):
    """A `keras.Model` whose gradients can be coupled and whose guarantees hold.

    It trains like any Keras model: `compile`, `fit`, callbacks, `.keras` files, strategies of
    several replicas. A training step passes the raw gradients to the coupling, and the result to
    the optimizer, which applies momentum, weight decay and, last, the projections that the layers
    declare as weight constraints. Projections and Lipschitz caps also hold where something else
    than a training step has changed weights: in each validation, at the end of `fit` and in every
    file that Keras writes of the model (see `restore_guarantees`).

    As a `keras.Model`, it is functional, or a class with `__init__` and `call` of its own:
    `class Net(ki.IterativeModel)`. Keras makes the configuration of such a model from the arguments
    of its `__init__`, unless it has a `get_config`. Files keep the depth settings of all blocks,
    also of those that such a class or a layer of the user's own makes.

    Args:
        inputs: Symbolic inputs, as for `keras.Model`.
        outputs: Symbolic outputs. A subclass with a `call` of its own gives neither.
        name: Name of the model.
        **kwargs: Passed to `keras.Model`.

    Example:
        >>> x = inputs = keras.Input((8, 8, 4))
        >>> x = ki.ResidualStage(4, blocks=3)(x)
        >>> x = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
        >>> model = ki.IterativeModel(inputs, x)
        >>> model.compile("sgd", "mse", coupling=0.5)
        >>> history = model.fit(np.ones((4, 8, 8, 4)), np.ones((4, 2)), verbose=0)
        >>> sorted(history.history)
        ['loss']

    Reference:
        Lippl et al. 2024, Eq. 1 and 2 (where the coupling acts).

    See also:
        `create_model`; `GradientCoupling`; `chain`; `with_depth`; `certify`.
    """

    coupling = None
    # `load_pretrained` sets these.
    preprocessing = None
    class_names = None
    card = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "IterativeModel":
        # `keras.Model.__new__` drops the arguments, of which Keras makes a configuration.
        return keras.layers.Layer.__new__(cls, *args, **kwargs)

    # Keras reads this signature to find out whether a model can be made of its graph.
    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, **kwargs: Any
    ):
        if inputs is None and outputs is None:
            super().__init__(name=name, **kwargs)
        else:
            type(self).make_functional()
            super().__init__(inputs, outputs, name=name, **kwargs)

    def compile(self, *args: Any, coupling: float | Callable | None = None, **kwargs: Any) -> None:
        """Configure the model for training.

        Args:
            *args: As for `keras.Model.compile`.
            coupling: None; a strength in [0, 1], or a `LearningRateSchedule` of it, for
                `GradientCoupling`; or a callable `(gradients, variables) -> gradients` on
                lists of equal length. Its arguments are the raw gradients of one replica, scaled if
                the optimizer scales the loss, so that it must be linear in them.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: `coupling` is none of these, the model has nothing to couple, or
                `jit_compile` is True and the model has blocks.

        Example:
            >>> model = ki.create_model("icr_w8", (8, 8, 1), 10, blocks=2)
            >>> model.compile("sgd", "sparse_categorical_crossentropy", coupling=0.9)
            >>> model.coupling.strength
            0.9

        See also:
            `GradientCoupling`.
        """
        coupling = as_coupling(coupling)
        self._check_coupling(coupling)
        given = inspect.signature(super().compile).bind(*args, **kwargs).arguments
        check_jit_compile(given.get("jit_compile"), filter(is_block, layers_within(self)))
        super().compile(*args, **kwargs)
        self.coupling = coupling

    def _check_coupling(self, coupling):
        # A subclassed model has variables after its first call only; the coupling checks them then.
        if isinstance(coupling, GradientCoupling) and self.built:
            coupling.find_coupled(self.trainable_variables, self.non_trainable_variables)

    def make_train_function(self, force: bool = False) -> Callable:
        # Layers may have been frozen since `compile`. An error within a training step would be
        # hidden in the traceback of a graph.
        self._check_coupling(self.coupling)
        return super().make_train_function(force)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        # `ConvergeCaps` runs first, so that other callbacks use a model with converged caps.
        # `RestoreGuarantees` runs last, since they may change weights.
        given = with_callbacks(self, super().fit, args, kwargs, ConvergeCaps(), RestoreGuarantees())
        return super().fit(*given.args, **given.kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        given = with_callbacks(self, super().evaluate, args, kwargs, None, RestoreGuarantees())
        return super().evaluate(*given.args, **given.kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        given = with_callbacks(self, super().predict, args, kwargs, None, RestoreGuarantees())
        return super().predict(*given.args, **given.kwargs)

    def restore_guarantees(self) -> None:
        """Project all weights that have a projection, and restore all Lipschitz caps.

        Training steps project the weights. Other changes do not: averages that replace the weights
        (`use_ema`, `SwapEMAWeights`), `set_weights`, `load_weights`, assignments. `fit`,
        `evaluate` and `predict` call this method after all callbacks that may change weights, and
        all methods that write a file call it first. Call it after such a change before you use the
        weights in another way. For a layer whose weights have not changed it costs a checksum.

        Example:
            >>> block = ki.NAISDense(3)
            >>> model = ki.IterativeModel(x := keras.Input((2,)), block(x))
            >>> model.set_weights([10 * w for w in model.get_weights()])
            >>> bool(np.linalg.norm(block.state_matrix(), 2) <= 1)
            False
            >>> model.restore_guarantees()
            >>> bool(np.linalg.norm(block.state_matrix(), 2) <= 1)
            True

        See also:
            `IterativeModel.converge_caps`; `projections.DenseProjection`; `certify`.
        """
        for layer in guaranteed_layers(layers_within(self)):
            layer.restore_guarantee()

    def converge_caps(self, tolerance: float = TOLERANCE) -> None:
        """Converge the norms of all Lipschitz caps for the moving statistics.

        `fit` calls this method at the start of the first training, before each validation, at the
        end of each epoch and at its end. Call it after a custom training loop: unlike
        `restore_guarantees` it also reduces a divisor that is larger than the cap needs, as new
        layers have.

        Args:
            tolerance: The residual to stop at, relative to the norm's square.
        """
        for layer in guaranteed_layers(layers_within(self)):
            layer.converge_guarantee(tolerance)

    def save_own_variables(self, store: Any) -> None:
        # Keras calls this method for each file, before it saves the variables of the layers.
        self.restore_guarantees()
        super().save_own_variables(store)

    @functools.wraps(keras.Model.save)
    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        # For HDF5 files Keras does not call `save_own_variables` of the model.
        if str(filepath).endswith((".h5", ".hdf5")):
            self.restore_guarantees()
        return super().save(filepath, *args, **kwargs)

    @functools.wraps(keras.Model.get_state_tree)
    def get_state_tree(self, *args: Any, **kwargs: Any) -> dict:
        # `OrbaxCheckpoint` writes this tree.
        self.restore_guarantees()
        return super().get_state_tree(*args, **kwargs)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write the model with its adaptive depth, for other runtimes.

        Args:
            filepath: The file, or the folder of a SavedModel.
            format: `"tf_saved_model"`, `"onnx"` or `"litert"`.
            verbose: Whether to print where the model was written; None for no.
            input_signature: None; a file has the inputs of the model, for any number of samples.
            **kwargs: Passed to `keras_iterconv.export_saved_model`, `export_onnx` or
                `export_litert`, which say what a file holds.

        Raises:
            ValueError: The format is another one, or the model cannot be exported to it; the
                message says why, and nothing is written.

        See also:
            `export_onnx`; `export_saved_model`; `export_litert`.
        """
        if input_signature is not None:
            raise ValueError(
                "`input_signature` must be None, since files of these models have the model's own "
                f"inputs for any number of samples. Received: input_signature={input_signature!r}"
            )
        # Imported here, since exporters use models.
        from keras_iterconv.exporting.export_functions import exporter_to

        export = exporter_to(format)
        export(self, filepath, **kwargs)
        if verbose:
            keras.utils.io_utils.print_msg(f"Exported {self.name!r} to {filepath}")

    def train_step(self, data: Any) -> dict:
        """Make one training step on a batch; Keras calls this method on each replica.

        Args:
            data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, as Keras passes it.

        Returns:
            The metrics by their names.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape, shared_functions():
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(share_of_loss(loss, x, self.loss))
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if isinstance(self.coupling, GradientCoupling):
            gradients = self.coupling(gradients, variables, self.optimizer.iterations)
        elif self.coupling is not None:
            gradients = self.coupling(gradients, variables)
        if on_several_replicas() and clips(self.optimizer):
            gradients = total_on_first_replica(gradients)
        self.optimizer.apply(gradients, variables)

        self._track_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict:
        """Evaluate one batch; Keras calls this method on each replica.

        Args:
            data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, as Keras passes it.

        Returns:
            The metrics by their names.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with shared_functions():
            y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        self._track_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def predict_step(self, data: Any) -> Any:
        """Predict one batch; Keras calls this method on each replica.

        Args:
            data: x, or a tuple that begins with it, as Keras passes it.

        Returns:
            The model's outputs.
        """
        with shared_functions():
            return super().predict_step(data)

    def _make_function(self, step_function):
        return super()._make_function(reducible(step_function, self.distribute_strategy))

    def _track_loss(self, loss, x):
        # Keras divides the loss by the number of replicas, so that the sum of the replicas'
        # gradients is the gradient of the mean loss. The metric is the loss without this factor.
        loss *= self.distribute_strategy.num_replicas_in_sync
        samples = count_samples(x)
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        # The loss of an empty batch is NaN, also when it is weighted by zero.
        tracker.update_state(tf.where(samples > 0, loss, 0), sample_weight=samples)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras needs only the shapes of the first batch, but adds the replicas' batches to get
        # them. This is an error if the replicas have different numbers of samples.
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            first = next(next(steps) for *_, steps in iterator)
            iterator, data_batch = (
                None,
                tf.nest.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], first
                ),
            )
        super()._maybe_symbolic_build(iterator, data_batch)

    def _run_through_graph(self, inputs, operation_fn=lambda layer: layer, call_fn=None):
        # Keras's method, with convolutions that also accept empty batches.
        if call_fn is None:
            call = operation_fn

            def operation_fn(layer):
                return layer_on_any_batch(layer, call(layer))

        return super()._run_through_graph(inputs, operation_fn, call_fn)

    @keeps_default
    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.preprocessing is not None:
            config["preprocessing"] = [list(numbers) for numbers in self.preprocessing]
        if self.class_names is not None:
            config["class_names"] = list(self.class_names)
        if "input_layers" in config and (settings := depth_settings(self)):
            config["depth_settings"] = settings
        return config

    def get_build_config(self) -> dict[str, Any] | None:
        config = super().get_build_config()
        if config and graph_of(self) is None:
            config = {**config, "depth_settings": depth_settings(self)}
        return config

    def build_from_config(self, config: dict[str, Any]) -> None:
        config = dict(config)
        settings = config.pop("depth_settings", [])
        super().build_from_config(config)
        set_depth_settings(self, settings)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict | None = None
    ) -> "IterativeModel":
        config = dict(config)
        preprocessing, class_names = (
            config.pop(name, None) for name in ("preprocessing", "class_names")
        )
        settings = []
        if "input_layers" in config:
            settings = config.pop("depth_settings", [])
        else:  # Not that of a graph.
            config = without_refused(cls, config)
        model = super().from_config(config, custom_objects)
        set_depth_settings(model, settings)
        if preprocessing is not None:
            model.preprocessing = Preprocessing(*map(tuple, preprocessing))
        if class_names is not None:
            model.class_names = tuple(class_names)
        return model

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if config:  # It is empty for a model that is not compiled, and must remain empty.
            config["coupling"] = keras.saving.serialize_keras_object(self.coupling)
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        if config.get("jit_compile") is True:  # As earlier versions compiled, which warned.
            config["jit_compile"] = "auto"
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)
