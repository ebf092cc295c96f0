"""Architectures by name."""

from keras_iterconv.models.depth import iterated_blocks, processing_depth, with_depth
from keras_iterconv.models.depth_settings import set_depth
from keras_iterconv.models.registry import create_model, list_models

__all__ = [
    "create_model",
    "iterated_blocks",
    "list_models",
    "processing_depth",
    "set_depth",
    "with_depth",
]
