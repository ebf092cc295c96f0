"""Keras layers, one public class a file."""

from keras_iterconv.layers.iterated_block import IteratedBlock
from keras_iterconv.layers.nais_conv2d import NAISConv2D
from keras_iterconv.layers.nais_dense import NAISDense
from keras_iterconv.layers.normalization import BatchNormalization
from keras_iterconv.layers.residual_block import ResidualBlock
from keras_iterconv.layers.residual_function import ResidualFunction
from keras_iterconv.layers.residual_stage import ResidualStage
from keras_iterconv.layers.residual_update import ResidualUpdate

__all__ = [
    "BatchNormalization",
    "IteratedBlock",
    "NAISConv2D",
    "NAISDense",
    "ResidualBlock",
    "ResidualFunction",
    "ResidualStage",
    "ResidualUpdate",
]
