"""Network architectures, created by name."""

from keras_iterconv.models.fast_net import whiten
from keras_iterconv.models.registry import create_model, list_models

__all__ = ["create_model", "list_models", "whiten"]
