"""The experiments by name, each in a module that is imported when it is needed."""

import importlib

from iterconv.command_errors import UserError
from keras_iterconv._support.checks import unknown_name

from .experiment import Experiment

_PLACES = {
    "toy": ("toy", "TOY"),
    "stability": ("stability", "STABILITY"),
    "mnist-ablation": ("mnist_ablation", "MNIST_ABLATION"),
    "coupling": ("coupled_stages", "COUPLED_STAGES"),
    "resnet-indices": ("residual_indices", "RESIDUAL_INDICES"),
    "capped": ("capped_stages", "CAPPED_STAGES"),
    "variations": ("coupling_variations", "COUPLING_VARIATIONS"),
    "sample-efficiency": ("sample_efficiency", "SAMPLE_EFFICIENCY"),
    "adaptive-or-fixed": ("adaptive_or_fixed", "ADAPTIVE_OR_FIXED"),
    "iterated-or-not": ("iterated_or_not", "ITERATED_OR_NOT"),
    "cifar-table": ("cifar_table", "CIFAR_TABLE"),
    "depth": ("depth_of_images", "DEPTH_OF_IMAGES"),
}
NAMES = tuple(_PLACES)


def find_experiment(name: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        UserError: There is no experiment of this name.
    """
    if name not in _PLACES:
        raise UserError(unknown_name("NAME", name, NAMES))
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(f"{__package__}.experiments.{module}"), attribute)
