"""The base class of a residual block and of a stage of them: weights and evaluation of f."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_channels_last, check_positive_int
from keras_iterconv._support.dense_gradients import with_dense_gradient
from keras_iterconv.layers.block_values import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    CAPPED,
    CAPPING,
    KERNEL_SIZE,
    MOVING,
    VECTORS,
    BlockValues,
    apply_function,
    folded_kernel,
    function_weights,
)
from keras_iterconv.layers.guaranteed_layer import GuaranteedLayer
from keras_iterconv.layers.normalization import normalize_batch
from keras_iterconv.layers.protocol import IterationLayer
from keras_iterconv.layers.stacked_variables import draw_stack, mark_stack
from keras_iterconv.spectral import (
    ConvOperator,
    cap_divisor,
    converged_norm,
    power_step,
    start_vectors,
)
from keras_iterconv.spectral.power_iteration import ITERATIONS, TOLERANCE


class ResidualFunction(IterationLayer, GuaranteedLayer):
    """Base class of layers that compute f = Conv2 . ReLU . BN2 . Conv1 . ReLU . BN1.

    The Lipschitz constant of f can be capped. The variables of several blocks are stacked,
    `[blocks, ...]`, so that the optimizer updates them together and the coupling of their gradients
    is one reduction. Norms, statistics and variables are float32 or float64 under every precision
    policy.

    Args:
        filters: The channels of inputs and outputs.
        blocks: The number of functions; None for one function with variables that are not stacked.
        shared_initialization: Whether all functions start from the same kernels.
        lipschitz_cap: mu, or None for no cap.
        initial_gamma: The initial value of both gammas, a number.
        synchronized: Whether replicas normalise by the statistics of all their samples together.
        **kwargs: Passed to `keras.layers.Layer`.

    Raises:
        ValueError: An argument is out of its range, or the inputs do not fit.
    """

    folds = True

    def __init__(
        self,
        filters: int,
        blocks: int | None,
        shared_initialization: bool,
        lipschitz_cap: float | None,
        initial_gamma: float,
        synchronized: bool,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_channels_last()
        self.filters = check_positive_int("filters", filters)
        self._blocks = None if blocks is None else check_positive_int("blocks", blocks)
        self.shared_initialization = bool(shared_initialization)
        if lipschitz_cap is not None:
            lipschitz_cap = check_between("lipschitz_cap", lipschitz_cap, 0, float("inf"))
        self.lipschitz_cap = lipschitz_cap
        self.initial_gamma = check_between("initial_gamma", initial_gamma, 0, 1e6)
        self.synchronized = bool(synchronized)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        # XLA is many times slower than oneDNN on a CPU.
        self.supports_jit = False

    def build(self, input_shape: Sequence[int | None]) -> None:
        if len(input_shape) != 4 or input_shape[-1] != self.filters:
            raise ValueError(
                f"The inputs of {self.name!r} must be [N, height, width, {self.filters}]: a "
                "residual function keeps the number of channels. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: self.filters})
        kernel = (KERNEL_SIZE, KERNEL_SIZE, self.filters, self.filters)
        channels = (self.filters,)
        gamma = keras.initializers.Constant(self.initial_gamma)
        for number in (1, 2):
            self._add(f"kernel{number}", kernel)
            self._add(f"gamma{number}", channels, gamma)
            self._add(f"beta{number}", channels, "zeros")
            self._add(f"mean{number}", channels, "zeros", trainable=False)
            self._add(f"variance{number}", channels, "ones", trainable=False)
        if self.lipschitz_cap is not None:
            self._build_cap(input_shape)
        self.built = True

    def _build_cap(self, input_shape):
        image = tuple(input_shape[1:])
        if None in image:
            raise ValueError(
                f"The inputs of {self.name!r} must have a known height and width with "
                "`lipschitz_cap`, since the norm of a convolution depends on the image size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        for name in VECTORS:
            self._add(
                name, image, lambda shape, dtype: self._start_vectors(shape, dtype), trainable=False
            )
        self._add("divisor", (), self._first_divisor, trainable=False)

    def _first_divisor(self, shape, dtype):
        """Return an upper bound of the divisor c for the initial weights, without iteration."""
        # An operator norm is at most KERNEL_SIZE times the Frobenius norm of its kernel.
        bound = (KERNEL_SIZE * self.initial_gamma) ** 2 / (1 + BATCH_NORM_EPSILON)
        for kernel in (self.kernel1, self.kernel2):
            value = tf.cast(tf.convert_to_tensor(kernel), dtype)
            bound *= tf.sqrt(tf.reduce_sum(tf.square(value), axis=(-4, -3, -2, -1)))
        return cap_divisor(bound, self.lipschitz_cap)

    def _start_vectors(self, shape, dtype):
        vectors = start_vectors(self._blocks or 1, shape[-3:], dtype)
        return tf.reshape(vectors, shape)

    def _add(self, name, shape, initializer=None, trainable=True):
        """Add a variable, stacked for several blocks; without an initializer it is He normal."""

        def kernels(shape, dtype):
            make = keras.initializers.HeNormal
            if self._blocks is None:
                return make()(shape, dtype)
            return draw_stack(make, shape, dtype, shared=self.shared_initialization)

        if self._blocks is not None:
            shape = (self._blocks, *shape)
        variable = self.add_weight(
            shape=shape,
            initializer=initializer or kernels,
            trainable=trainable,
            autocast=False,
            # Without aggregation the replicas' statistics and vectors would diverge. The mean of
            # unit vectors is shorter than one, so that the first replica's vectors are used.
            # Synchronized statistics are equal on all replicas, and what is computed from them.
            aggregation="none"
            if trainable or self.synchronized
            else ("only_first_replica" if name in CAPPING else "mean"),
            name=name,
        )
        if self._blocks is not None and trainable:
            mark_stack(variable)
        setattr(self, name, variable)

    def value_names(self) -> tuple[str, ...]:
        """Return the names of the layer's variables, as in `BlockValues`."""
        return BlockValues._fields if self.lipschitz_cap is not None else BlockValues._fields[:-3]

    def block_value(self, t: int | tf.Tensor) -> BlockValues:
        """Return the values of block t of a stage, an int or an int32 scalar."""
        return BlockValues(**{name: value[t] for name, value in self._tensors().items()})

    def block_values(self) -> list[BlockValues]:
        """Return the values of all blocks."""
        values = self._tensors()
        if self._blocks is None:
            return [BlockValues(**values)]
        unstacked = {name: tf.unstack(value) for name, value in values.items()}
        return [
            BlockValues(**{name: by_block[i] for name, by_block in unstacked.items()})
            for i in range(self._blocks)
        ]

    def _tensors(self) -> dict[str, tf.Tensor]:
        return {name: tf.convert_to_tensor(getattr(self, name)) for name in self.value_names()}

    def _evaluate(self, state: tf.Tensor, block: BlockValues) -> tf.Tensor:
        """Return f(state), capped, in evaluation."""
        return apply_function(state, function_weights(block))

    def _train(self, state: tf.Tensor, block: BlockValues) -> tuple[tf.Tensor, BlockValues]:
        """Return f(state), capped, in training, and the block with its moving values updated."""
        options = BATCH_NORM_EPSILON, self.synchronized
        y, mean1, variance1 = normalize_batch(
            state, block.gamma1, block.beta1, (block.mean1, block.variance1), *options
        )
        y = tf.nn.conv2d(tf.nn.relu(y), self._cast(block.kernel1), 1, "SAME")
        y, mean2, variance2 = normalize_batch(
            y, block.gamma2, block.beta2, (block.mean2, block.variance2), *options
        )
        batch = block._replace(mean1=mean1, variance1=variance1, mean2=mean2, variance2=variance2)
        block = self._moved(block, batch)
        kernel2 = block.kernel2 if block.divisor is None else block.kernel2 / block.divisor
        y = tf.nn.conv2d(tf.nn.relu(y), self._cast(kernel2), 1, "SAME")
        return y, block

    def _moved(self, block: BlockValues, batch: BlockValues) -> BlockValues:
        """Return a block after a training step.

        Args:
            block: The block before it.
            batch: The same with the statistics of the batch, by which f normalises.

        Returns:
            The block with moved statistics; with a cap also with the next vectors, and the divisor
            for the batch's statistics. It is used in evaluation until `converge_cap` computes the
            one for the moving statistics.
        """
        m = BATCH_NORM_MOMENTUM
        moved = {name: m * getattr(block, name) + (1 - m) * getattr(batch, name) for name in MOVING}
        if self.lipschitz_cap is not None:
            bound, moved["vector1"], moved["vector2"] = self._lipschitz_bound(batch)
            moved["divisor"] = cap_divisor(bound, self.lipschitz_cap)
        return block._replace(**moved)

    def _train_recomputed(
        self, state: tf.Tensor, block: BlockValues
    ) -> tuple[tf.Tensor, BlockValues]:
        """Return the result of `_train`, whose activations the backward pass recomputes."""
        count = len(self.value_names())

        @tf.recompute_grad
        def run(state, *values):
            change, moved = self._train(state, BlockValues(*values))
            return change, *moved[:count]

        change, *values = run(state, *block[:count])
        return with_dense_gradient(change), BlockValues(*values)

    def _cast(self, value):
        return tf.cast(value, self.compute_dtype)

    def _lipschitz_bound(self, block: BlockValues) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return L of Eq. 3 after one step of power iteration, and the next two vectors."""
        image = block.vector1.shape
        folded = ConvOperator(folded_kernel(block), image)
        norm1, vector1 = power_step(folded, block.vector1[tf.newaxis])
        norm2, vector2 = power_step(ConvOperator(block.kernel2, image), block.vector2[tf.newaxis])
        return norm1 * norm2, vector1[0], vector2[0]

    def _converged_bound(
        self,
        block: BlockValues,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
        continued: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return L of Eq. 3, larger by the tolerance, and the two first singular vectors.

        Args:
            block: The block, with the statistics for which L is computed.
            iterations: The largest number of steps for each norm.
            tolerance: The residual at which to stop, relative to the norm's square.
            continued: Whether to start near the stored vectors.
        """
        bound, vectors = 1.0, []
        for kernel, stored in (
            (folded_kernel(block), block.vector1),
            (block.kernel2, block.vector2),
        ):
            estimate = stored[tf.newaxis] if continued else None
            operator = ConvOperator(kernel, stored.shape)
            norm, vector = converged_norm(operator, iterations, tolerance, estimate)
            bound *= norm
            vectors.append(vector[0])
        return bound * (1 + tolerance), *vectors

    def _store_moving(self, blocks: list[BlockValues]) -> None:
        """Assign the values that a training step changed without a gradient to the variables."""
        for name in MOVING + (CAPPING if self.lipschitz_cap is not None else ()):
            values = [getattr(block, name) for block in blocks]
            value = values[0] if self._blocks is None else tf.stack(values)
            getattr(self, name).assign(tf.stop_gradient(value))

    def converge_cap(self, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> None:
        """Compute the norms for the moving statistics, so that the cap holds in evaluation.

        Training makes one step of power iteration in each training step, and approaches a norm
        from below. `fit` of an `IterativeModel` calls this method before it validates or saves.
        After a custom training loop, call it or `IterativeModel.converge_caps`.

        Args:
            iterations: The largest number of steps for each norm.
            tolerance: The residual at which to stop, relative to the norm's square. c is larger by
                this fraction.

        Example:
            >>> f = ki.ResidualBlock(4, lipschitz_cap=0.5)
            >>> f.build((None, 8, 8, 4))
            >>> f.converge_cap()
            >>> round(f.certificate_rows((8, 8))[0].capped_bound, 2)
            0.5

        See also:
            `IterativeModel.converge_caps`, for all blocks of a model; `spectral.converged_norm`.
        """
        if self.lipschitz_cap is None:
            return
        for name, value in self._converged(iterations, tolerance).items():
            getattr(self, name).assign(value)

    def _converged(self, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> dict:
        """Return the values that `converge_cap` assigns, by the names of the variables."""
        by_block = []
        for block in self.block_values():
            bound, *vectors = self._converged_bound(block, iterations, tolerance)
            by_block.append((*vectors, cap_divisor(bound, self.lipschitz_cap)))
        return {
            name: values[0] if self._blocks is None else tf.stack(values)
            for name, values in zip(CAPPING, zip(*by_block, strict=True), strict=True)
        }

    def guaranteed_variables(self) -> list[keras.Variable]:
        return [] if self.lipschitz_cap is None else [getattr(self, name) for name in CAPPED]

    def _restore_guarantee(self):
        divisor = self._converged()["divisor"]
        if self._guaranteed is None:
            # The divisor of a new layer is an upper bound, so that the cap holds already.
            divisor = tf.maximum(divisor, self.divisor)
        if not np.allclose(self.divisor.numpy(), divisor, rtol=TOLERANCE / 10, atol=0):
            self.divisor.assign(divisor)

    def converge_guarantee(self, tolerance: float) -> None:
        self.converge_cap(tolerance=tolerance)
        self.note_guarantee()

    def folded_kernels(self) -> list[tuple]:
        """Return, for each f, the kernels of BN2 . Conv1 . BN1 and of Conv2, and the divisor."""
        return [
            (
                folded_kernel(block),
                block.kernel2,
                1.0 if self.lipschitz_cap is None else float(block.divisor),
            )
            for block in self.block_values()
        ]

    def folded_config(self) -> dict[str, Any]:
        return {**self.get_config(), "lipschitz_cap": None}

    def assign_folded(self, original: "ResidualFunction") -> None:
        # Computed in double precision and rounded once.
        values = {
            name: np.asarray(keras.ops.convert_to_numpy(getattr(original, name)), np.float64)
            for name in original.value_names()
        }
        scale = values["gamma2"] / np.sqrt(values["variance2"] + BATCH_NORM_EPSILON)
        values["kernel1"] = values["kernel1"] * scale[..., np.newaxis, np.newaxis, np.newaxis, :]
        values["beta2"] = values["beta2"] - values["mean2"] * scale
        values["mean2"] = np.zeros_like(scale)
        values["gamma2"] = np.ones_like(scale)
        values["variance2"] = np.full_like(scale, 1 - BATCH_NORM_EPSILON)
        divisor = values.pop("divisor", None)
        if divisor is not None:
            values["kernel2"] = values["kernel2"] / divisor[..., *[np.newaxis] * 4]
        for name in self.value_names():
            getattr(self, name).assign(values[name])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "lipschitz_cap": self.lipschitz_cap,
            "initial_gamma": self.initial_gamma,
            "synchronized": self.synchronized,
        }
