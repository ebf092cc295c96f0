"""Networks that compute by iteration, for TensorFlow and Keras."""

from keras_iterconv import _environment  # noqa: F401  isort: skip  # before TensorFlow

from keras_iterconv import projections, unrolling
from keras_iterconv.layers import IteratedBlock, NAISConv2D, NAISDense, ResidualUpdate
from keras_iterconv.models import (
    create_model,
    iterated_blocks,
    list_models,
    processing_depth,
    with_depth,
)
from keras_iterconv.trainer import IterativeModel

__version__ = "0.1.0"

__all__ = [
    "IteratedBlock",
    "IterativeModel",
    "NAISConv2D",
    "NAISDense",
    "ResidualUpdate",
    "create_model",
    "iterated_blocks",
    "list_models",
    "processing_depth",
    "projections",
    "unrolling",
    "with_depth",
]
