"""Digitclutter as a TFDS builder, and its way into the user's folder at the first use."""

import contextlib
import dataclasses
import io
import tempfile
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
    """Which pictures a data set holds; `make_config` also finds its name.

    Args:
        digits: How many digits a picture has, from 1 to 10.
        sizes: How many pictures the parts train, validation and test hold.
        seed: Of the pictures, a whole number from 0.
    """

    digits: int = 2
    sizes: tuple[int, int, int] = SIZES
    seed: int = 0


def make_config(
    digits: int, sizes: tuple[int, int, int] = SIZES, seed: int = 0
) -> DigitclutterConfig:
    """Describe a data set, under a name that no other one has.

    Args:
        digits: How many digits a picture has, from 1 to 10.
        sizes: How many pictures the parts train, validation and test hold, each at least one.
        seed: Of the pictures, a whole number from 0.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> config = make_config(3, sizes=(500, 50, 50), seed=1)
        >>> Digitclutter(config=config, data_dir="/tmp/tfds").download_and_prepare()
    """
    if not 1 <= digits <= CLASSES:
        raise ValueError(f"`digits` must be from 1 to {CLASSES}. Received: digits={digits}")
    if len(sizes) != len(PARTS) or min(sizes) < 1:
        raise ValueError(f"`sizes` must be three numbers from 1. Received: sizes={sizes}")
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more. Received: seed={seed}")
    for config in Digitclutter.BUILDER_CONFIGS:
        if (config.digits, config.sizes, config.seed) == (digits, tuple(sizes), seed):
            return config
    name = "-".join([f"n{digits}", *map(str, sizes), f"seed{seed}"])
    return DigitclutterConfig(name=name, digits=digits, sizes=tuple(sizes), seed=seed)


class Digitclutter(tfds.core.GeneratorBasedBuilder):
    """Overlapping digits, drawn here: nothing is downloaded.

    The configs `n2` to `n5` are the whole data sets; `make_config` makes others. Features: `image`,
    uint8 [32, 32, 1]; `digits`, int64 [n], the covered ones first; `label`, uint8 [10], 1 for each
    class in the picture. The records lie in the order of their index.
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
            # A part's first pictures are those of a smaller data set.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        sizes = zip(PARTS, self.builder_config.sizes, strict=True)
        return {part: self._generate_examples(part, size) for part, size in sizes}

    def _generate_examples(self, part: str, size: int):
        config = self.builder_config
        # Closed here: where writing fails, the workers must not wait for the garbage collector.
        with contextlib.closing(draw_pictures(config.seed, config.digits, part, size)) as pictures:
            for index, (picture, classes) in enumerate(pictures):
                label = np.zeros(CLASSES, np.uint8)
                label[classes] = 1
                yield index, {"image": picture, "digits": classes, "label": label}


def read_digitclutter(digits: int, limit_train: int | None = None):
    """Read a Digitclutter data set from the TFDS folder, drawing it there where it is missing.

    Args:
        digits: How many digits a picture has, 2 to 5.
        limit_train: Read only this many training pictures, the first, and a tenth as many for
            validation; the test part is whole. Where the whole data set is not in the folder, no
            more than that is drawn.

    Returns:
        `(splits, classes)`: for each part `(images uint8 [N, 32, 32, 1], labels int32 [N, 10])`,
        and the class names.

    Raises:
        DatasetError: If it cannot be written to the folder.
        DatasetCorruptedError: If the folder holds it, damaged.
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
    splits = read_parts(builder, cuts, "delete that folder and run again to have it drawn anew")
    return splits, tuple(str(digit) for digit in range(CLASSES))


def _make(config: DigitclutterConfig, folder: str) -> Digitclutter:
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not in the class.
    try:
        return Digitclutter(config=config, data_dir=folder)
    except Exception as error:
        raise DatasetCorruptedError(
            f"Data set 'digitclutter' in {folder}/digitclutter/{config.name} is damaged "
            f"({first_line(error)}): delete that folder and run again to have it drawn anew."
        ) from error
    finally:
        logging.set_verbosity(before)


def _build(builder: Digitclutter, name: str) -> None:
    """Draw a data set into the folder, whole or not at all."""
    try:
        with (
            remove_new_empty_folders(Path(builder.data_path).parent),
            # TFDS prints that it downloads a data set of an unknown size; its bars are kept.
            contextlib.redirect_stdout(io.StringIO()),
            # Nothing is downloaded, but TFDS makes the folder for it.
            tempfile.TemporaryDirectory(prefix="keras_iterconv_") as downloads,
        ):
            builder.download_and_prepare(download_dir=downloads)
    except Exception as error:
        if builder.data_path.exists():  # Another process was quicker.
            return
        raise DatasetError(
            f"Data set {name!r} could not be drawn into {tfds_folder()} ({first_line(error)}): "
            "make room there, or set TFDS_DATA_DIR to a folder that can be written."
        ) from error
