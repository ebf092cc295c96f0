"""Data sets, their cuts, and the batches made of them."""

from training.datasets.augmentation import AUGMENTATIONS, get_augmentation
from training.datasets.catalogue import CATALOGUE, DatasetEntry, list_datasets, load_dataset
from training.datasets.image_data import ImageData, Split
from training.datasets.pipeline import evaluation_batches, steps_per_epoch, training_batches
from training.datasets.tfds_reader import (
    DatasetCorruptedError,
    DatasetError,
    DatasetNotFoundError,
)

__all__ = [
    "AUGMENTATIONS",
    "CATALOGUE",
    "DatasetCorruptedError",
    "DatasetEntry",
    "DatasetError",
    "DatasetNotFoundError",
    "ImageData",
    "Split",
    "evaluation_batches",
    "get_augmentation",
    "list_datasets",
    "load_dataset",
    "steps_per_epoch",
    "training_batches",
]
