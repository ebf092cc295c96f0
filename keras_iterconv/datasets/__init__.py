"""Image data sets, split into training, validation and test parts, and batches of them."""

from keras_iterconv.datasets.any_source import load_any
from keras_iterconv.datasets.assembly import TEST_SHARE
from keras_iterconv.datasets.augmentation import AUGMENTATIONS, get_augmentation
from keras_iterconv.datasets.catalogue import CATALOGUE, DatasetEntry, list_datasets, load
from keras_iterconv.datasets.image_data import ImageData
from keras_iterconv.datasets.image_split import Split
from keras_iterconv.datasets.picture_files import UnreadablePictureError, read_picture
from keras_iterconv.datasets.picture_folder import FOLDER_PREFIX, folder_dataset_name, load_folder
from keras_iterconv.datasets.pipeline import (
    batch_numbers,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from keras_iterconv.datasets.pixel_statistics import PIXELS
from keras_iterconv.datasets.published_data import load_published_data
from keras_iterconv.datasets.splitting import VALIDATION_SHARE
from keras_iterconv.datasets.stored_images import StoredImages
from keras_iterconv.datasets.tfds_reader import (
    DatasetCorruptedError,
    DatasetError,
    DatasetNotFoundError,
)

__all__ = [
    "AUGMENTATIONS",
    "CATALOGUE",
    "FOLDER_PREFIX",
    "PIXELS",
    "TEST_SHARE",
    "VALIDATION_SHARE",
    "DatasetCorruptedError",
    "DatasetEntry",
    "DatasetError",
    "DatasetNotFoundError",
    "ImageData",
    "Split",
    "StoredImages",
    "UnreadablePictureError",
    "batch_numbers",
    "evaluation_batches",
    "folder_dataset_name",
    "get_augmentation",
    "list_datasets",
    "load",
    "load_any",
    "load_folder",
    "load_published_data",
    "read_picture",
    "steps_per_epoch",
    "training_batches",
]
