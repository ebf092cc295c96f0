"""Data sets, their cuts, and the batches made of them."""

from .augmentation import AUGMENTATIONS, get_augmentation
from .catalogue import CATALOGUE, DatasetEntry, list_datasets, load_dataset
from .image_data import PIXELS, ImageData, Split
from .pipeline import batch_numbers, evaluation_batches, steps_per_epoch, training_batches
from .splitting import VALIDATION_SHARE
from .tfds_reader import (
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
    "load_dataset",
    "steps_per_epoch",
    "training_batches",
]
