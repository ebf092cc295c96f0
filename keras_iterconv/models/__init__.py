"""Architectures by name."""

from keras_iterconv.models.depth import iterated_blocks, processing_depth, with_depth
from keras_iterconv.models.depth_settings import set_depth
from keras_iterconv.models.finite import NotFinite, find_not_finite
from keras_iterconv.models.pretrained import ZooError, list_pretrained, load_pretrained
from keras_iterconv.models.registry import create_model, list_models

__all__ = [
    "NotFinite",
    "ZooError",
    "create_model",
    "find_not_finite",
    "iterated_blocks",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "processing_depth",
    "set_depth",
    "with_depth",
]
