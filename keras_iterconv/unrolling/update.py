"""The update that a loop repeats: a static description, and the tensors that it depends on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import State, select


class Update:
    """Base class of the static descriptions of an update.

    A subclass defines `step`, for any structure of state tensors. It is a frozen dataclass: two
    equal descriptions share a graph, so it must not hold or close over tensors. These are kept
    beside it, in a `BoundUpdate`.

    Gradients need the derivatives of `step` to be finite where a sample's state and drives are
    zero: samples without an upstream gradient are replaced by zeros.

    Attributes:
        tied: Whether the update is the same for all k.
        linear: Whether the pre-activation of an `EulerUpdate` is affine in the state.
        whole_batch: Whether the update needs the whole batch, as one with random numbers does: then
            stopped samples are not removed from it.
        couples_samples: Whether a sample's update depends on the other samples, as batch statistics
            do; then `whole_batch` must be true too.
        make_drives: None, or a function from `drive_inputs` to the tuple of drives, called once
            for all updates.
        without_settling: Whether no loss on the last update is computed from its states.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True)
        ... class Halve(ki.unrolling.Update):
        ...     def step(self, state, k, weights, drives):
        ...         change = -0.5 * state
        ...         return state + change, change
        >>> ki.unrolling.unroll_fixed(Halve().bind(), tf.ones([1, 2]), 3).state.numpy().tolist()
        [[0.125, 0.125]]

    See also:
        `unrolling.EulerUpdate`, a faster one with an activation; `unrolling.BoundUpdate`;
        `IteratedBlock`, for a layer with an update; `Iterate`, for an update as a Keras layer.
    """

    tied: bool = True
    linear: bool = False
    whole_batch: bool = False
    couples_samples: bool = False
    make_drives: Callable[..., tuple] | None = None
    without_settling = True

    @property
    def two_sided(self) -> bool:
        """Whether the only nonlinearity is an activation with positive slopes everywhere."""
        return False

    def step(
        self, state: State, k: tf.Tensor, weights: tuple, drives: tuple
    ) -> tuple[State, State]:
        """Return the state after one update, and the change of the state.

        Args:
            state: x(k), a tensor `[N, ...]` or a structure of tensors, float32 or float64.
            k: The number of the update, an int32 scalar, from 0.
            weights: Tensors that all samples share.
            drives: Tensors `[N, ...]`, one entry for each sample.

        Returns:
            `(new state, change)`, two structures like `state`, of its shapes and dtypes.
        """
        raise NotImplementedError

    def step_carrying(
        self, state: State, k: tf.Tensor, weights: tuple, drives: tuple, carried: tuple
    ) -> tuple[State, State, tuple]:
        """Return `(new state, change, carried)` of one update that needs the whole batch.

        Args:
            state: As for `step`.
            k: As for `step`.
            weights: As for `step`.
            drives: As for `step`.
            carried: Tensors that all samples share and that each update changes, such as moving
                statistics. The new state must not depend on them.
        """
        return *self.step(state, k, weights, drives), carried

    def bind(
        self, weights: tuple = (), drives: tuple = (), drive_inputs: tuple = ()
    ) -> "BoundUpdate":
        """Return the update with its tensors, those that `BoundUpdate` describes.

        Args:
            weights: Tensors that all samples share; gradients reach them.
            drives: Tensors `[N, ...]`.
            drive_inputs: The arguments of `make_drives`, tensors, in place of `drives`.

        Raises:
            ValueError: There are `drive_inputs` without a `make_drives` that reads them, or drives
                too, which `make_drives` would replace.

        See also:
            `unrolling.BoundUpdate`.
        """
        if drive_inputs and (self.make_drives is None or drives):
            raise ValueError(
                "`drive_inputs` must be empty unless the update has a function `make_drives`, and "
                f"no `drives` are given, which it returns. Received: {len(drive_inputs)} drive "
                f"inputs, {len(drives)} drives, make_drives={self.make_drives}"
            )
        return BoundUpdate(self, tuple(weights), tuple(drives), tuple(drive_inputs))

    def begin_step(
        self, state: State, k: int | tf.Tensor, weights: tuple, drives: tuple
    ) -> tuple[State, Any, Callable[[], State]]:
        """Return `(change, kept, complete)` of one update.

        Args:
            state: x(k), a structure of tensors `[N, ...]`.
            k: The number of the update, from 0.
            weights: As for `step`.
            drives: As for `step`.

        Returns:
            The change of the state; what the exact backward pass keeps of this update, a
            structure of tensors; and a function that returns the new state.
        """
        new, change = self.step(state, k, weights, drives)
        check_like("The new state of an update", new, state)
        check_like("The change of an update", change, state)
        return change, state, lambda: new

    def kept_specs(self, state: State) -> Any:
        """Return a `tf.TensorSpec` for each tensor that `begin_step` keeps, batch size None.

        Args:
            state: x(0), a structure of tensors `[N, ...]`.
        """
        return tf.nest.map_structure(lambda z: tf.TensorSpec([None, *z.shape[1:]], z.dtype), state)

    def kept_before(self, state: State) -> Any:
        """Return what a loop of the whole batch keeps of an update: the state before it.

        Args:
            state: x(k), a structure of tensors `[N, ...]`.
        """
        return state

    def step_back(
        self,
        after: State,
        k: int | tf.Tensor,
        kept: Any,
        g: State,
        moved: tf.Tensor | None,
        weights: tuple,
        drives: tuple,
    ) -> tuple[State, State, list, list]:
        """Return the state before an update, and the gradients through it.

        Args:
            after: The state after the update.
            k: The number of the update.
            kept: What `begin_step` kept of it.
            g: The gradient in the state after it, a structure like the state.
            moved: Which samples made the update, bool `[N]`; None for all. State and gradient of
                the others do not change, whatever was computed for them.
            weights: As for `step`.
            drives: As for `step`.

        Returns:
            `(state, g, weights', drives')`: the state before the update, the gradient in it, and
            two lists of gradients.
        """
        if moved is None:
            return kept, *self.step_vjp(kept, k, g, weights, drives)
        before = masked(moved, kept, after)
        upstream = masked(moved, g, tf.nest.map_structure(tf.zeros_like, g))
        earlier, dweights, ddrives = self.step_vjp(before, k, upstream, weights, drives)
        if self.couples_samples:
            # The others' updates depend on the state of a stopped sample.
            kept_back = masked(moved, tf.nest.map_structure(tf.zeros_like, g), g)
            return before, tf.nest.map_structure(tf.add, earlier, kept_back), dweights, ddrives
        return before, masked(moved, earlier, g), dweights, ddrives

    def step_vjp(
        self, state: State, k: int | tf.Tensor, g: State, weights: tuple, drives: tuple
    ) -> tuple[State, list, list]:
        """Return the vector-Jacobian products of the new state with g.

        Args:
            state: x(k), a structure of tensors `[N, ...]`.
            k: The number of the update, from 0.
            g: The upstream gradient, a structure like the state.
            weights: As for `step`.
            drives: As for `step`.

        Returns:
            `(state's, weights', drives')`: a structure like the state, and two lists; each in the
            dtype of its tensor.
        """
        return vjp(lambda: self.step(state, k, weights, drives)[0], g, state, weights, drives)


class BoundUpdate(NamedTuple):
    """An update and all tensors that it depends on, so that it can run on a part of the batch.

    Attributes:
        update: The static description.
        weights: Tensors that all samples share, in the dtype in which their gradients are summed;
            those of integers have none.
        drives: Tensors `[N, ...]`, one entry for each sample.
        drive_inputs: The arguments of `make_drives`, tensors, from which the drives have yet to
            be computed; the first is `[N, ...]`. Empty where they have been, and where the update
            has no `make_drives`.
        carried: Tensors that all samples share and that each update changes, at x(0); no gradient
            reaches them.

    Example:
        >>> relu = ki.unrolling.ACTIVATIONS["relu"]
        >>> transfer = lambda x, k, weights, drives: drives[0] - x
        >>> update = ki.unrolling.EulerUpdate(transfer, relu, 0.5)
        >>> bound = update.bind(drives=(tf.constant([[1.0], [4.0]]),))
        >>> bound.step(tf.zeros([2, 1]), 0)[0].numpy().tolist()
        [[0.5], [2.0]]

    See also:
        `unrolling.Update.bind`, which makes it; `unrolling.unroll_fixed`.
    """

    update: Update
    weights: tuple = ()
    drives: tuple = ()
    drive_inputs: tuple = ()
    carried: tuple = ()

    @property
    def tensors(self) -> tuple:
        """All tensors that the update depends on: weights, drives and drive inputs."""
        return (*self.weights, *self.drives, *self.drive_inputs)

    def with_tensors(self, tensors: Sequence[tf.Tensor]) -> "BoundUpdate":
        """Return the update with its tensors replaced, in the order of the property `tensors`.

        Args:
            tensors: As many as `tensors`, in its order.
        """
        remaining = iter(tensors)
        groups = (self.weights, self.drives, self.drive_inputs)
        weights, drives, inputs = (tuple(next(remaining) for _ in group) for group in groups)
        return self._replace(weights=weights, drives=drives, drive_inputs=inputs)

    def with_drives(self) -> "BoundUpdate":
        """Return the update with its drives computed from `drive_inputs`."""
        if self.update.make_drives is None or not self.drive_inputs:
            return self
        drives = self.update.make_drives(*self.drive_inputs)
        return self._replace(drives=drives, drive_inputs=())

    def on(self, sample_indices: tf.Tensor) -> "BoundUpdate":
        """Return the update of the samples at `sample_indices`, `[n]`, its drives computed.

        Args:
            sample_indices: Numbers of samples, int32 `[n]`.
        """
        return self._replace(
            drives=tuple(tf.gather(drive, sample_indices) for drive in self.drives)
        )

    def step(self, state: State, k: int | tf.Tensor) -> tuple[State, State]:
        """Return `(new state, change)` of one update, its drives computed.

        Args:
            state: x(k), a structure of tensors `[N, ...]`.
            k: The number of the update, from 0.
        """
        return self.update.step(state, k, self.weights, self.drives)

    def step_carrying(
        self, state: State, k: int | tf.Tensor, carried: tuple
    ) -> tuple[State, State, tuple]:
        """Return `Update.step_carrying` for the tensors of this update.

        Args:
            state: x(k), a structure of tensors `[N, ...]`.
            k: The number of the update, from 0.
            carried: What the update before this one carried; `carried` for the first.
        """
        return self.update.step_carrying(state, k, self.weights, self.drives, carried)

    def begin_step(
        self, state: State, k: int | tf.Tensor
    ) -> tuple[State, Any, Callable[[], State]]:
        """Return `Update.begin_step` for the tensors of this update.

        Args:
            state: x(k), a structure of tensors `[N, ...]`.
            k: The number of the update, from 0.
        """
        return self.update.begin_step(state, k, self.weights, self.drives)

    def step_back(
        self, after: State, k: int | tf.Tensor, kept: Any, g: State, moved: tf.Tensor | None = None
    ) -> tuple[State, State, list, list]:
        """Return `Update.step_back` for the tensors of this update.

        Args:
            after: As for `Update.step_back`, like the next four.
            k: The number of the update.
            kept: What the update kept.
            g: The upstream gradient.
            moved: The samples that made the update, or None for all.
        """
        return self.update.step_back(after, k, kept, g, moved, self.weights, self.drives)


def vjp(
    function: Callable[[], State], g: State, state: State, weights: tuple, drives: tuple
) -> tuple[State, list, list]:
    """Return the vector-Jacobian products of a function of state, weights and drives.

    Args:
        function: A function without arguments that computes with these tensors.
        g: The vector, a structure like the function's result.
        state: The state, a structure of tensors.
        weights: The update's weights.
        drives: The update's drives.

    Returns:
        `(state's, weights', drives')`: a structure like the state, and two lists; zeros where the
        result does not depend on a tensor.
    """
    sources = (state, list(weights), list(drives))
    with tf.GradientTape() as tape:
        tape.watch([z for z in tf.nest.flatten(sources) if z.dtype.is_floating])
        result = function()
    return tape.gradient(
        result,
        sources,
        output_gradients=g,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )


def check_like(what: str, found: Any, state: State) -> None:
    """Raise `ValueError` where a structure has not the static shapes and dtypes of the state."""

    def describe(structure):
        return tf.nest.map_structure(
            lambda z: f"{z.dtype.name} {tuple(z.shape) if z.shape.rank is not None else '?'}",
            structure,
        )

    try:
        tf.nest.assert_same_structure(found, state)
        pairs = zip(tf.nest.flatten(found), tf.nest.flatten(state), strict=True)
        fits = all(
            z.dtype == other.dtype and z.shape.is_compatible_with(other.shape) for z, other in pairs
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"{what} must have the structure, shapes and dtypes of the state, {describe(state)}. "
            f"Received: {describe(found)}"
        )


def masked(moved: tf.Tensor, x: State, y: State) -> State:
    """Return the samples of the structure x where `moved`, bool `[N]`, holds, else those of y."""
    # `select` passes over the whole batch, so it runs only where some sample has stopped.
    return tf.cond(
        tf.reduce_all(moved),
        lambda: x,
        lambda: tf.nest.map_structure(lambda a, b: select(moved, a, b), x, y),
    )
