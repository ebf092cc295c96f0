"""The papers' experiments as settings of a run, and a short training on CIFAR-10.

Settings that a paper does not give are our choice; `docs/training.md` lists them.
"""

from typing import Any

from keras_iterconv._support.processor import computes_half_precision_fast

# Neither paper mentions a validation part; the presets train on all training images.
_ALL_IMAGES = {"validation_share": 0.0}
# NAIS-Net gives the epochs, the learning rate and its steps.
_NAIS_CIFAR = {
    **_ALL_IMAGES,
    "epochs": 450,
    "batch_size": 128,
    "learning_rate": 0.1,
    "schedule": "step",
    "weight_decay": 0.0,
    "clip_norm": 5.0,
    "augment": "standard",
    "pixels": "standardized",
}
# A training of hours, not weeks, on two cores: few updates first (a fifth of the time), all of them
# in the last epoch. The batch and the rate are half of the paper's.
_NAIS_CIFAR_SHORT = {
    **_NAIS_CIFAR,
    "epochs": 16,
    "batch_size": 64,
    "learning_rate": 0.05,
    "schedule": "cosine",
    "unroll_schedule": "0:1,12:3,15:10",
}
# At the paper's learning rate the models train only on pixels in [0, 1].
_NAIS_MNIST = {
    **_ALL_IMAGES,
    "epochs": 150,
    "batch_size": 128,
    "learning_rate": 0.1,
    "schedule": "constant",
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "augment": "none",
    "pixels": "unit",
}
# Lippl et al. publish none of these settings; these are the usual ones of pre-activation ResNets.
# He et al. decay by 1e-4 in the gradient, before momentum; decoupled that is 1e-3.
_LIPPL = {
    **_ALL_IMAGES,
    "epochs": 164,
    "batch_size": 128,
    "learning_rate": 0.1,
    "schedule": "step-twice",
    "weight_decay": 1e-3,
    "clip_norm": 0.0,
    "augment": "none",
    "pixels": "standardized",
}
_LIPPL_CIFAR = {**_LIPPL, "augment": "standard"}
# A training of some two hours on two cores. It decays as by 5e-4 in the gradient, as is usual for
# short trainings.
_LIPPL_CIFAR_SHORT = {
    **_LIPPL_CIFAR,
    "epochs": 20,
    "schedule": "triangle",
    "nesterov": True,
    "weight_decay": 5e-3,
    "mixed_precision": computes_half_precision_fast,
}
_LIPPL_MNIST = {**_LIPPL, "epochs": 40}
# Digitclutter has a validation part of its own, so that only the default share is valid.
_LIPPL_CLUTTER = {**_LIPPL, "epochs": 40, "validation_share": 0.1}
# After the recipe of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
_FAST = {
    **_ALL_IMAGES,
    "epochs": 16,
    "batch_size": 512,
    "learning_rate": 0.4,
    "schedule": "triangle",
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.012,
    "clip_norm": 0.0,
    "label_smoothing": 0.2,
    "augment": "alternating",
    "pixels": "standardized",
    "mixed_precision": computes_half_precision_fast,
    "mirrored_test": True,
}
# A value that is a function is called when the preset is used.
PRESETS: dict[str, dict[str, Any]] = {
    "fast-cifar10": {"model": "nais_fast", "dataset": "cifar10", **_FAST},
    "nais-cifar10": {"model": "nais10", "dataset": "cifar10", **_NAIS_CIFAR},
    "nais-cifar100": {"model": "nais10", "dataset": "cifar100", **_NAIS_CIFAR},
    "nais1-cifar10": {"model": "nais1", "dataset": "cifar10", **_NAIS_CIFAR},
    "nais1-cifar100": {"model": "nais1", "dataset": "cifar100", **_NAIS_CIFAR},
    "nais-adaptive-cifar10": {"model": "nais_adaptive", "dataset": "cifar10", **_NAIS_CIFAR},
    "nais-adaptive-cifar10-short": {
        "model": "nais_adaptive",
        "dataset": "cifar10",
        **_NAIS_CIFAR_SHORT,
    },
    "resnet-cifar10": {"model": "resnet54", "dataset": "cifar10", **_NAIS_CIFAR},
    "resnet-cifar100": {"model": "resnet54", "dataset": "cifar100", **_NAIS_CIFAR},
    "nais-mnist": {"model": "nais_dense", "dataset": "mnist", **_NAIS_MNIST},
    "resnet-w16-cifar10": {"model": "resnet_w16", "dataset": "cifar10", **_LIPPL_CIFAR},
    "resnet-w16-cifar100": {"model": "resnet_w16", "dataset": "cifar100", **_LIPPL_CIFAR},
    "resnet-w16-mnist": {"model": "resnet_w16", "dataset": "mnist", **_LIPPL_MNIST},
    "resnet-w16-digitclutter": {
        "model": "resnet_w16",
        "dataset": "digitclutter5",
        **_LIPPL_CLUTTER,
    },
    "icr-w16-cifar10": {"model": "icr_w16", "dataset": "cifar10", **_LIPPL_CIFAR},
    "pcr-w16-cifar10": {"model": "pcr_w16", "dataset": "cifar10", **_LIPPL_CIFAR},
    **{
        f"{net}-w16-cifar10-short": {
            "model": f"{net}_w16",
            "dataset": "cifar10",
            **_LIPPL_CIFAR_SHORT,
        }
        for net in ("resnet", "icr", "pcr")
    },
    # With shared weights, a step size of 1 and no normalisation, the loss becomes NaN in the
    # first epoch unless the gradient is clipped.
    "resnet-sh-mnist": {"model": "resnet_sh", "dataset": "mnist", **_NAIS_MNIST, "clip_norm": 5.0},
    "resnet-sh-bn-mnist": {"model": "resnet_sh_bn", "dataset": "mnist", **_NAIS_MNIST},
}
