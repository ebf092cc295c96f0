"""The records of TFDS's files, in any order: pictures that are read where they are used.

A file is read once from its beginning, which compares its checksums. That gives the place of each
record, at which it is read afterwards.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_iterconv.datasets.picture_files import UnreadablePictureError, read_header

# What a record has before and after its content: a length of 8 bytes and two checksums of 4.
_BEFORE, _AFTER = 12, 4
# Number of records in memory at a time.
BATCH = 64


class Records(NamedTuple):
    """The labelled pictures in record files.

    Attributes:
        files: The paths of the files.
        places: Number of the file, and offset and length of the record in it, int64 [N, 3].
        labels: Class numbers, int32 [N].
        sizes: The sizes (height, width) of the pictures; empty where they were not asked for.
        sha256: Hash of the splits' names and of all records, in their order.
    """

    files: list[str]
    places: np.ndarray
    labels: np.ndarray
    sizes: set[tuple[int, int]]
    sha256: str

    def read(self, number: int) -> tuple[str, bytes]:
        """Return a name for messages and the encoded picture of a record.

        Raises:
            UnreadablePictureError: The file cannot be read, or has changed.
        """
        file, offset, length = self.places[number].tolist()
        name = f"record {number} of {self.files[file]}"
        try:
            with open(self.files[file], "rb") as stream:
                stream.seek(offset)
                content = stream.read(length)
            return name, _picture(tf.train.Example.FromString(content))
        except OSError as error:
            raise UnreadablePictureError(f"{name} cannot be opened: {error.strerror}") from error
        # A protocol buffer's errors have no public base class.
        except Exception as error:
            raise UnreadablePictureError(f"{name} is damaged: {error}") from error


def scan(splits: Iterable[Any], with_sizes: bool) -> tuple[Records, list[np.ndarray]]:
    """Read the files of splits from their beginning.

    Args:
        splits: Splits of a builder, of the file format `tfrecord`, with features `image` and
            `label`.
        with_sizes: Whether to read the size of each picture.

    Returns:
        `(records, parts)`: the labelled records of all splits, and for each split their numbers,
        int64 [M]. A negative label stands for none.

    Raises:
        ValueError: A file has another number of records than its description says.
        tf.errors.OpError: A file is damaged.
        UnreadablePictureError: A picture has no readable header.
    """
    files: list[str] = []
    places: list[tuple[int, int, int]] = []
    labels: list[int] = []
    sizes: set[tuple[int, int]] = set()
    parts = []
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.name.encode() + b"\0")
        first = len(labels)
        for file, expected in zip(map(str, split.filepaths), split.shard_lengths, strict=True):
            offset, count = 0, 0
            for content in _contents(file):
                # Hashed one by one, so that it is known where a record ends.
                digest.update(hashlib.sha256(content).digest())
                example = tf.train.Example.FromString(content)
                label = example.features.feature["label"].int64_list.value[0]
                if label >= 0:
                    places.append((len(files), offset + _BEFORE, len(content)))
                    labels.append(label)
                    if with_sizes:
                        name = f"record {count} of {file}"
                        sizes.add(read_header(_picture(example), name)[:2])
                offset += _BEFORE + len(content) + _AFTER
                count += 1
            if count != expected:
                raise ValueError(f"{count} records in {file} instead of {expected}")
            files.append(file)
        parts.append(np.arange(first, len(labels)))
    table = np.array(places, np.int64).reshape(-1, 3)
    found = Records(files, table, np.array(labels, np.int32), sizes, digest.hexdigest())
    return found, parts


def _contents(file: str) -> Iterator[bytes]:
    """Yield the content of each record of a file."""
    # Each step of the iterator takes as long as reading ten records.
    for batch in tf.data.TFRecordDataset(file).batch(BATCH).as_numpy_iterator():
        yield from batch


def _picture(example: Any) -> bytes:
    return example.features.feature["image"].bytes_list.value[0]
