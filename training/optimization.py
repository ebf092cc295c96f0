"""The optimizer and the learning-rate schedule of a run."""

from typing import Any

import keras

from keras_iterconv._support.extras import require_addons
from keras_iterconv.layers.stacked_variables import is_stack
from keras_iterconv.triangle_schedule import TriangleSchedule

from .settings import Settings

# The shares of a run after which the learning rate is divided by 10.
_DROPS = {"step": (3 / 9, 5 / 9, 7 / 9), "step-twice": (1 / 2, 3 / 4)}


def make_schedule(settings: Settings, steps_per_epoch: int) -> Any:
    """Return the learning-rate schedule over the optimizer's steps.

    `cosine` decreases to zero over the run. `step` divides by 10 after 1/3, 5/9 and 7/9 of the
    epochs (NAIS-Net: 150, 250 and 350 of 450), `step-twice` after 1/2 and 3/4 (usual for ResNets).
    `triangle` rises from a fifth of the learning rate to all of it within 23% of the steps, and
    falls to 7% of it at the end, both linearly. `constant` does not change. `cyclical` makes four
    cycles between a tenth of the learning rate and the learning rate
    (`tensorflow_addons.optimizers.TriangularCyclicalLearningRate`).

    Args:
        settings: The settings of the run.
        steps_per_epoch: Number of optimizer steps in an epoch.

    Returns:
        A number, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        MissingExtraError: The schedule is `cyclical` and the extra `addons` is missing.
    """
    rate = settings.learning_rate
    steps = settings.epochs * steps_per_epoch
    if settings.schedule == "constant":
        return rate
    if settings.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(rate, steps)
    if settings.schedule == "triangle":
        return TriangleSchedule(rate, steps)
    if settings.schedule in _DROPS:
        # Keras keeps a rate up to its boundary, that step included.
        boundaries = [round(steps * share) - 1 for share in _DROPS[settings.schedule]]
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            boundaries, [rate / 10**drop for drop in range(len(boundaries) + 1)]
        )
    return require_addons().optimizers.TriangularCyclicalLearningRate(
        initial_learning_rate=rate / 10,
        maximal_learning_rate=rate,
        step_size=max(1, steps // 8),
    )


def make_optimizer(
    settings: Settings, steps_per_epoch: int, variables: list[keras.Variable]
) -> keras.optimizers.Optimizer:
    """Return Adam, or SGD with momentum: by default 0.9, as in NAIS-Net and pre-activation ResNets.

    Weight decay acts on matrices and kernels. It does not act on variables with one number for
    each channel: biases, scales, shifts and kernel centres.
    """
    schedule = make_schedule(settings, steps_per_epoch)
    common = {
        "global_clipnorm": settings.clip_norm or None,
        "weight_decay": settings.weight_decay or None,
    }
    if settings.optimizer == "adam":
        optimizer = keras.optimizers.Adam(schedule, beta_1=settings.momentum, **common)
    else:
        optimizer = keras.optimizers.SGD(
            schedule, momentum=settings.momentum, nesterov=settings.nesterov, **common
        )
    if settings.weight_decay:
        vectors = [v for v in variables if len(v.shape) - is_stack(v) < 2]
        optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer
