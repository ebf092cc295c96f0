"""Keras layers, one public class a file, and what a block of one's own needs."""

from keras_iterconv.layers.iterate import Iterate
from keras_iterconv.layers.iterated_block import IteratedBlock
from keras_iterconv.layers.max_pooling import MaxPooling2D
from keras_iterconv.layers.nais_conv2d import NAISConv2D
from keras_iterconv.layers.nais_dense import NAISDense
from keras_iterconv.layers.normalization import BatchNormalization
from keras_iterconv.layers.protocol import Block, NoBoundError
from keras_iterconv.layers.residual_block import ResidualBlock
from keras_iterconv.layers.residual_function import ResidualFunction
from keras_iterconv.layers.residual_stage import ResidualStage
from keras_iterconv.layers.residual_update import ResidualUpdate
from keras_iterconv.layers.rules.rows import BlockRow, TiedRow

__all__ = [
    "BatchNormalization",
    "Block",
    "BlockRow",
    "Iterate",
    "IteratedBlock",
    "MaxPooling2D",
    "NAISConv2D",
    "NAISDense",
    "NoBoundError",
    "ResidualBlock",
    "ResidualFunction",
    "ResidualStage",
    "ResidualUpdate",
    "TiedRow",
]
