"""Keras layers, one public class a file."""

from keras_iterconv.layers.iterated_block import IteratedBlock
from keras_iterconv.layers.nais_conv2d import NAISConv2D
from keras_iterconv.layers.nais_dense import NAISDense
from keras_iterconv.layers.residual_update import ResidualUpdate

__all__ = ["IteratedBlock", "NAISConv2D", "NAISDense", "ResidualUpdate"]
