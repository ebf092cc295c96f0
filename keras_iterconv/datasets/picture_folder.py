"""A data set from the user's own pictures: a folder of class folders."""

import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_iterconv.datasets.assembly import (
    TEST_SHARE,
    assemble,
    check_shares,
    choose_size,
    cut_off,
    limited,
    survey,
)
from keras_iterconv.datasets.image_data import ImageData
from keras_iterconv.datasets.picture_files import (
    PictureHeader,
    UnreadablePictureError,
    picture_suffixes,
    read_content,
    read_header,
)
from keras_iterconv.datasets.splitting import VALIDATION_SHARE
from keras_iterconv.datasets.stored_images import StoredImages

# The names of such data sets begin with it, which no name of the catalogue does.
FOLDER_PREFIX = "folder:"


def folder_dataset_name(path: str | os.PathLike) -> str:
    """Return the name of the data set of a folder, `folder:` and the folder's own name.

    Args:
        path: The folder; it need not exist.

    Example:
        >>> ki.datasets.folder_dataset_name("pictures/pets")
        'folder:pets'

    See also:
        `datasets.load_folder`.
    """
    return FOLDER_PREFIX + unicodedata.normalize("NFC", Path(path).resolve().name)


class _Found(NamedTuple):
    """The picture files of a folder.

    Attributes:
        files: Their paths, sorted by class and name.
        labels: Class numbers, int32 [N].
        classes: The class names, sorted.
        deeper: A sentence for each folder in a class folder that holds pictures.
    """

    files: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    deeper: tuple[str, ...]

    def read(self, number: int) -> tuple[str, bytes]:
        """Return the path and the content of a picture."""
        return self.files[number], read_content(self.files[number])


def load_folder(
    path: str | os.PathLike,
    *,
    image_size: int | Sequence[int] | None = None,
    validation_share: float = VALIDATION_SHARE,
    test_share: float = TEST_SHARE,
    limit_train: int | None = None,
    pixels: str = "standardized",
) -> ImageData:
    """Return a data set of pictures in a folder that holds one folder for each class.

    A class is a folder, its name the name of the class. Pictures are the files directly in it with
    a suffix that Pillow can read, such as PNG, JPEG, GIF and WebP; hidden files and folders and all
    other files are left out. Pictures may differ in size and mode: see `read_picture` for how one
    becomes an image. The images are grey if all pictures are, else RGB.

    Each picture is decoded once at the start. One that cannot be read is left out and named in
    `skipped` and in a warning; so are folders with pictures in a class folder, and the parts
    without a picture of a class. Images stay in memory where they take at most an eighth of it.
    Otherwise they are read from the folder again for each batch; the batches are the same.

    The parts are shares of each class. They depend on the names of the files, not on a seed. Of a
    class of at least three pictures each part has at least one, at the default shares.

    Args:
        path: The folder.
        image_size: Side of the images, or height and width. None for the size of the pictures if
            all have one size of at most 128 a side, and else 64.
        validation_share: Share of the pictures that are no test pictures for validation, in
            [0, 1).
        test_share: Share of the pictures for the test part, in (0, 1).
        limit_train: Number of training images to keep; None for all. The validation part keeps its
            share.
        pixels: `"standardized"` by mean and standard deviation of the training part, or `"unit"`
            for values from 0 to 1.

    Returns:
        An `ImageData` with the name `folder:` and the folder's name.

    Warns:
        UserWarning: `skipped` is not empty.

    Raises:
        ValueError: The folder does not hold two classes; a class folder holds no picture, or none
            that can be read; or another argument is out of range.

    Example:
        >>> for name, value in ("cats", 50), ("dogs", 200):
        ...     tf.io.gfile.makedirs(f"pets/{name}")
        ...     for number in range(10):
        ...         picture = np.full((16, 16, 3), value + number)
        ...         keras.utils.save_img(f"pets/{name}/{number}.png", picture, scale=False)
        >>> data = ki.datasets.load_folder("pets", image_size=8)
        >>> data.classes, data.input_shape, len(data.train), len(data.test)
        (('cats', 'dogs'), (8, 8, 3), 14, 4)

    See also:
        `datasets.load`, for published data sets; `datasets.read_picture`; `datasets.ImageData`.
    """
    check_shares(validation_share, test_share)
    found = _find(path)
    headers, digest = _read_headers(found)
    broken = {i: head for i, head in enumerate(headers) if not isinstance(head, PictureHeader)}
    _check_readable(found, broken, path)
    shape = _image_shape([head for head in headers if isinstance(head, PictureHeader)], image_size)
    numbers = np.setdiff1d(np.arange(len(headers)), list(broken))
    seen = survey(StoredImages(found.read, numbers, shape))
    broken.update({int(numbers[index]): error for index, error in seen.broken.items()})
    _check_readable(found, broken, path)
    labels = found.labels[numbers]
    kept = np.setdiff1d(np.arange(len(numbers)), list(seen.broken))
    train, test = cut_off(labels, kept, test_share)
    train, validation = cut_off(labels, train, validation_share)
    parts = {"train": train, "validation": validation, "test": test}
    if not validation_share:
        del parts["validation"]
    absent = _absent(labels, parts, found.classes)
    train, validation = limited(labels, train, validation, limit_train, validation_share)
    if not len(test):
        raise ValueError(
            "`path` must hold at least two pictures of a class, so that one is a test picture, and "
            f"three with a validation part. Received: path={_shown(path)}, with one of each"
        )
    skipped = (*(str(broken[i]) for i in sorted(broken)), *found.deeper, *absent)
    if skipped:
        more = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        warnings.warn(f"left out: {skipped[0]}{more}; see `skipped`", stacklevel=2)
    return assemble(
        folder_dataset_name(path),
        seen,
        labels,
        (train, validation, test),
        found.classes,
        pixels,
        skipped=skipped,
        sha256=digest,
    )


def _find(path: str | os.PathLike) -> _Found:
    """Return the picture files of a folder of class folders.

    Raises:
        ValueError: There are not two classes, or a class folder holds no picture.
    """
    folders = {name: Path(path, entry) for name, entry in _entries(path) if _is_class(path, entry)}
    if len(folders) < 2:
        there = f"one folder, {next(iter(folders))!r}" if folders else "no folder"
        raise ValueError(
            "`path` must hold at least two folders, one for each class, with its pictures. "
            f"Received: path={_shown(path)}, which holds {there}"
        )
    files: list[str] = []
    labels: list[int] = []
    deeper: list[str] = []
    for label, (name, folder) in enumerate(folders.items()):
        entries = [folder / entry for _, entry in _entries(folder)]
        pictures = [entry for entry in entries if _is_picture(entry)]
        if not pictures:
            raise ValueError(
                "`path` must hold pictures in each of its folders, files such as .png or .jpg "
                f"directly in it: {name!r} holds none; add some, or move that folder away. "
                f"Received: path={_shown(path)}"
            )
        files += map(str, pictures)
        labels += [label] * len(pictures)
        deeper += [
            f"{entry}, a folder in a class folder, with {_pictures(count)}"
            for entry in entries
            if entry.is_dir() and (count := _count_below(entry))
        ]
    return _Found(files, np.array(labels, np.int32), tuple(folders), tuple(deeper))


def _entries(folder: str | os.PathLike) -> list[tuple[str, str]]:
    """Return `(name, entry)` of what is in a folder and not hidden, sorted by name.

    The name is in the composed form of Unicode: the same on each system.
    """
    try:
        entries = [entry for entry in os.listdir(folder) if not entry.startswith(".")]
    except OSError as error:
        raise ValueError(
            "`path` must be a folder of class folders that can be read. "
            f"Received: path={_shown(folder)} ({error.strerror})"
        ) from error
    return sorted((unicodedata.normalize("NFC", entry), entry) for entry in entries)


def _is_picture(path: Path) -> bool:
    """Return whether a path is a picture file, or a link to none, which is named as broken."""
    # Opening a pipe would wait for what is written into it.
    has_suffix = path.suffix.lower() in picture_suffixes()
    return has_suffix and (path.is_file() or not path.exists())


def _count_below(folder: Path) -> int:
    """Return the number of pictures in a folder and its folders, none of them hidden."""
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += sum(not name.startswith(".") and _is_picture(Path(place, name)) for name in files)
    return count


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _absent(
    labels: np.ndarray, parts: Mapping[str, np.ndarray], classes: tuple[str, ...]
) -> Iterator[str]:
    """Yield a sentence for each class of so few pictures that a part has none of them."""
    counts = {part: np.bincount(labels[at], minlength=len(classes)) for part, at in parts.items()}
    for label, name in enumerate(classes):
        lacking = [part for part, count in counts.items() if not count[label]]
        if lacking:
            there = sum(int(count[label]) for count in counts.values())
            yield f"class {name!r} from {' and '.join(lacking)}: it has {_pictures(there)}"


def _is_class(path: str | os.PathLike, entry: str) -> bool:
    """Return whether an entry of a folder is a class folder.

    Raises:
        ValueError: It is one, and its name cannot be that of a class.
    """
    if not Path(path, entry).is_dir():
        return False
    if not entry.isprintable():  # A line end, or bytes that are no UTF-8.
        raise ValueError(
            "`path` must hold folders with printable names in UTF-8, the names of the classes. "
            f"Received: path={_shown(path)}, which holds {entry!a}"
        )
    return True


def _read_headers(
    found: _Found,
) -> tuple[list[PictureHeader | UnreadablePictureError], str]:
    """Return the header of each picture, or its error, and a hash of all names and contents."""
    headers: list[PictureHeader | UnreadablePictureError] = []
    digest = hashlib.sha256()
    for number, label in enumerate(found.labels):
        place = f"{found.classes[label]}/{Path(found.files[number]).name}"
        name = unicodedata.normalize("NFC", place)
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            file, content = found.read(number)
            digest.update(hashlib.sha256(content).digest())
            headers.append(read_header(content, file))
        except UnreadablePictureError as error:
            headers.append(error)
    return headers, digest.hexdigest()


def _check_readable(
    found: _Found, broken: Mapping[int, UnreadablePictureError], path: str | os.PathLike
) -> None:
    """Raise `ValueError` where no picture of a class can be read."""
    for label, name in enumerate(found.classes):
        pictures = np.flatnonzero(found.labels == label)
        if all(number in broken for number in pictures.tolist()):
            raise ValueError(
                f"`path` must hold pictures that can be read in each of its folders: of {name!r} "
                f"none of {len(pictures)} can, and {broken[int(pictures[0])]}. "
                f"Received: path={_shown(path)}"
            )


def _image_shape(headers: list[PictureHeader], given: Any) -> tuple[int, int, int]:
    height, width = choose_size(given, {(head.height, head.width) for head in headers})
    return height, width, 1 if all(head.is_grey for head in headers) else 3


def _shown(path: str | os.PathLike) -> str:
    return repr(os.fspath(path))
