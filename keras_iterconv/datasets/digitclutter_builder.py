"""Digitclutter as a TFDS builder, and a reader that generates it at the first use."""

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from keras_iterconv.datasets.digitclutter import CLASSES, PARTS, SIDE, SIZES, draw_pictures
from keras_iterconv.datasets.tfds_reader import (
    DatasetCorruptedError,
    DatasetError,
    first_line,
    read_parts,
    remove_new_empty_folders,
    tfds_folder,
)


@dataclasses.dataclass
class DigitclutterConfig(tfds.core.BuilderConfig):
    """The parameters of a data set; `make_config` also gives it a name.

    Args:
        digits: Number of digits in an image, from 1 to 10.
        sizes: Numbers of images of the parts train, validation and test.
        seed: Seed of the images, an integer of at least 0.
    """

    digits: int = 2
    sizes: tuple[int, ...] = SIZES
    seed: int = 0


def make_config(
    digits: int, sizes: tuple[int, int, int] = SIZES, seed: int = 0
) -> DigitclutterConfig:
    """Return the config of a data set, under a unique name.

    Args:
        digits: Number of digits in an image, from 1 to 10.
        sizes: Numbers of images of the parts train, validation and test, each at least 1.
        seed: Seed of the images, an integer of at least 0.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> config = make_config(3, sizes=(500, 50, 50), seed=1)
        >>> Digitclutter(config=config, data_dir="/tmp/tfds").download_and_prepare()
    """
    if not 1 <= digits <= CLASSES:
        raise ValueError(f"`digits` must be from 1 to {CLASSES}. Received: digits={digits}")
    if len(sizes) != len(PARTS) or min(sizes) < 1:
        raise ValueError(f"`sizes` must be three integers of at least 1. Received: sizes={sizes}")
    if seed < 0:
        raise ValueError(f"`seed` must be an integer of at least 0. Received: seed={seed}")
    for config in Digitclutter.BUILDER_CONFIGS:
        if (config.digits, config.sizes, config.seed) == (digits, tuple(sizes), seed):
            return config
    name = "-".join([f"n{digits}", *map(str, sizes), f"seed{seed}"])
    return DigitclutterConfig(name=name, digits=digits, sizes=tuple(sizes), seed=seed)


class Digitclutter(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of Digitclutter, which generates the images and downloads nothing.

    The configs `n2` to `n5` are the complete data sets; `make_config` makes others. Features:
    `image`, uint8 [32, 32, 1]; `digits`, int64 [n], from the lowermost to the uppermost; `label`,
    uint8 [10], 1 for each class in the image. The records are in the order of their index.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {  # noqa: RUF012  # TFDS reads it from the class.
        "2.0.0": "The outline reaches 10 pixels beyond the face, not 20: all images differ.",
        "1.0.0": "The first.",
    }
    BUILDER_CONFIGS = [DigitclutterConfig(name=f"n{n}", digits=n) for n in (2, 3, 4, 5)]  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Overlapping digits, as in Spoerer, McClure and Kriegeskorte 2017.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
                    "digits": tfds.features.Tensor(
                        shape=(self.builder_config.digits,), dtype=np.int64
                    ),
                    "label": tfds.features.Tensor(shape=(CLASSES,), dtype=np.uint8),
                }
            ),
            supervised_keys=("image", "label"),
            # The first images of a part must be those of a smaller data set.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        sizes = zip(PARTS, self.builder_config.sizes, strict=True)
        return {part: self._generate_examples(part, size) for part, size in sizes}

    def _generate_examples(self, part: str, size: int) -> Iterator:
        config = self.builder_config
        # Closed here to end the workers at once where writing fails.
        with contextlib.closing(draw_pictures(config.seed, config.digits, part, size)) as pictures:
            for index, (picture, classes) in enumerate(pictures):
                label = np.zeros(CLASSES, np.uint8)
                label[classes] = 1
                yield index, {"image": picture, "digits": classes, "label": label}


def read_digitclutter(digits: int, limit_train: int | None = None) -> tuple[dict, tuple[str, ...]]:
    """Return a Digitclutter data set from the TFDS folder, generated there where it is missing.

    Args:
        digits: Number of digits in an image, 2 to 5.
        limit_train: Number of training images to read, from the first on, with a tenth as many
            validation images; the test part is complete. Where the complete data set is not in the
            folder, only these images are generated. None for all images.

    Returns:
        `(splits, classes)`: for each part `(images uint8 [N, 32, 32, 1], labels int32 [N, 10])`,
        and the class names.

    Raises:
        DatasetError: The data set cannot be written to the folder.
        DatasetCorruptedError: The data set in the folder is damaged.
    """
    folder = tfds_folder()
    sizes = SIZES
    if limit_train is not None:
        sizes = (limit_train, max(1, round(limit_train * SIZES[1] / SIZES[0])), SIZES[2])
    builder = _make(make_config(digits, SIZES), folder)
    if not builder.data_path.exists():
        builder = _make(make_config(digits, sizes), folder)
        if not builder.data_path.exists():
            _build(builder, f"digitclutter{digits}")
            builder = _make(builder.builder_config, folder)
    cuts = {part: f"{part}[:{size}]" for part, size in zip(PARTS, sizes, strict=True)}
    splits = read_parts(builder, cuts, "delete that folder and run again to generate it again")
    return splits, tuple(str(digit) for digit in range(CLASSES))


def _make(config: DigitclutterConfig, folder: str) -> Digitclutter:
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns about each config that is not in the class.
    try:
        return Digitclutter(config=config, data_dir=folder)
    except Exception as error:
        raise DatasetCorruptedError(
            f"Data set 'digitclutter' in {folder}/digitclutter/{config.name} is damaged "
            f"({first_line(error)}): delete that folder and run again to generate it again."
        ) from error
    finally:
        logging.set_verbosity(before)


def _build(builder: Digitclutter, name: str) -> None:
    """Generate a data set in the folder, completely or not at all."""
    try:
        with (
            remove_new_empty_folders(Path(builder.data_path).parent),
            # TFDS prints that it downloads a data set of unknown size; its progress bars stay.
            contextlib.redirect_stdout(io.StringIO()),
            # Nothing is downloaded, but TFDS creates the download folder.
            tempfile.TemporaryDirectory(prefix="keras_iterconv_") as downloads,
        ):
            builder.download_and_prepare(download_dir=downloads)
    except Exception as error:
        if builder.data_path.exists():  # Another process has generated it meanwhile.
            return
        raise DatasetError(
            f"Data set {name!r} could not be written to {tfds_folder()} ({first_line(error)}): "
            "free disk space there, or set TFDS_DATA_DIR to a writable folder."
        ) from error
