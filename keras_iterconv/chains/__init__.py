"""Stages of a user's own functional models, described as chains of blocks."""

from keras_iterconv.chains.describe_chain import chain
from keras_iterconv.chains.model_chain import Chain

__all__ = ["Chain", "chain"]
