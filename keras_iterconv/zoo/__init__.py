"""Trained models, loaded by name."""

from keras_iterconv.zoo.index import ZooError
from keras_iterconv.zoo.pretrained import list_pretrained, load_pretrained

__all__ = ["ZooError", "list_pretrained", "load_pretrained"]
