"""Image data sets, split into training, validation and test parts, and batches of them."""

from keras_iterconv.datasets.augmentation import AUGMENTATIONS, get_augmentation
from keras_iterconv.datasets.catalogue import CATALOGUE, DatasetEntry, list_datasets, load
from keras_iterconv.datasets.image_data import PIXELS, ImageData, Split
from keras_iterconv.datasets.pipeline import (
    batch_numbers,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from keras_iterconv.datasets.splitting import VALIDATION_SHARE
from keras_iterconv.datasets.tfds_reader import (
    DatasetCorruptedError,
    DatasetError,
    DatasetNotFoundError,
)

__all__ = [
    "AUGMENTATIONS",
    "CATALOGUE",
    "PIXELS",
    "VALIDATION_SHARE",
    "DatasetCorruptedError",
    "DatasetEntry",
    "DatasetError",
    "DatasetNotFoundError",
    "ImageData",
    "Split",
    "batch_numbers",
    "evaluation_batches",
    "get_augmentation",
    "list_datasets",
    "load",
    "steps_per_epoch",
    "training_batches",
]
