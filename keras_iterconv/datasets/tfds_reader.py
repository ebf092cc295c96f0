"""Reading data sets from a TFDS folder, with short error messages and without long retries.

Without a connection, `tfds.load` retries for more than three minutes, prints about forty warnings,
leaves temporary files in the folder, and ends with a traceback of urllib3.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from keras_iterconv._support.errors import CorrectableError

PROBE_SECONDS = 8.0


class DatasetError(CorrectableError, RuntimeError):
    """A data set is not available; the message is one sentence for the user.

    Example:
        >>> ki.datasets.load_published_data({"dataset": "pets"})
        Traceback (most recent call last):
            ...
        keras_iterconv.datasets.tfds_reader.DatasetError: It is not known where the images of...

    See also:
        `datasets.DatasetNotFoundError`; `datasets.DatasetCorruptedError`; `datasets.load`.
    """


class DatasetNotFoundError(DatasetError):
    """A data set is not in the TFDS folder and could not be downloaded.

    Example:
        >>> issubclass(ki.datasets.DatasetNotFoundError, ki.datasets.DatasetError)
        True

    See also:
        `datasets.DatasetError`; `datasets.load`.
    """


class DatasetCorruptedError(DatasetError):
    """A data set is in the TFDS folder but cannot be read.

    Example:
        >>> issubclass(ki.datasets.DatasetCorruptedError, ki.datasets.DatasetError)
        True

    See also:
        `datasets.DatasetError`; `datasets.load`.
    """


def tfds_folder() -> str:
    """Return the folder of TFDS data sets: $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    TFDS reads the variable once, at import; this function reads it at each call.
    """
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def is_reachable(url: str, timeout: float = PROBE_SECONDS) -> bool:
    """Return whether a server responds at `url`, through the user's proxies if there are any.

    Args:
        url: An http or https address; a response of any status counts.
        timeout: Longest time to wait, in seconds, including the name lookup.
    """
    import requests

    responses = []

    def ask():
        with suppress(requests.RequestException):
            responses.append(requests.head(url, timeout=timeout, allow_redirects=False))

    # The timeout of requests does not cover the name lookup, which takes minutes behind some
    # firewalls.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(responses)


def read_tfds(name: str, source: str) -> tuple[dict[str, tuple], tuple[str, ...]]:
    """Return the parts `train` and `test` of an image data set, downloaded where it is missing.

    Args:
        name: Name of the data set in TFDS.
        source: Address that TFDS downloads it from. It is tested first, because TFDS takes minutes
            to detect that there is no connection.

    Returns:
        `(splits, classes)`: for each split `(images uint8 [N, H, W, C], labels int32 [N])`, and
        the class names.

    Raises:
        DatasetNotFoundError: The data set is not in the folder and cannot be downloaded.
        DatasetCorruptedError: The data set in the folder is damaged.
    """
    import tensorflow_datasets as tfds

    folder = tfds_folder()
    damaged = f"Data set {name!r} in {os.path.join(folder, name)} is damaged"
    remedy = "delete that folder and run again with a connection, or set TFDS_DATA_DIR to another"
    try:
        builder = tfds.builder(name, data_dir=folder)
    except Exception as error:
        raise DatasetCorruptedError(f"{damaged} ({first_line(error)}): {remedy}.") from error
    if not builder.data_path.exists():  # builder.is_prepared() would log a warning here.
        download(builder, folder, source)

    splits = read_parts(builder, {part: part for part in ("train", "test")}, remedy)
    return splits, tuple(builder.info.features["label"].names)


def read_parts(
    builder: Any, parts: dict[str, str], remedy: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return parts of a prepared data set, in memory.

    Args:
        builder: TFDS builder of images with labels.
        parts: For each TFDS split, the slice to read, for example `"train[:100]"`.
        remedy: Advice for the error message where the data set is damaged.

    Returns:
        For each part `(images uint8 [N, H, W, C], labels int32 [N] or [N, C])`.

    Raises:
        DatasetCorruptedError: A part is missing or cannot be read.
    """
    import tensorflow_datasets as tfds

    damaged = f"Data set {builder.name!r} in {builder.data_path.parent} is damaged"
    # TFDS caches a small data set by default; here it is read only once.
    once = tfds.ReadConfig(try_autocache=False)
    splits = {}
    for part, wanted in parts.items():
        if part not in builder.info.splits:
            raise DatasetCorruptedError(f"{damaged} (no split {part!r} is described): {remedy}.")
        try:
            # One batch of the complete split: TFDS then checks its length by dataset_info.json.
            read = builder.as_dataset(
                split=wanted, batch_size=-1, as_supervised=True, read_config=once
            )
            images, labels = tfds.as_numpy(read)
        except Exception as error:
            raise DatasetCorruptedError(
                f"{damaged} (split {part!r}: {first_line(error)}): {remedy}."
            ) from error
        splits[part] = (images, labels.astype(np.int32))
    return splits


def download(builder: Any, folder: str, source: str) -> None:
    """Download and prepare a data set; remove all new files where that fails.

    Args:
        builder: The builder of a data set that is not in the folder.
        folder: The TFDS folder.
        source: An address that responds where a download is possible. It is tested first, because
            TFDS takes minutes to detect that there is no connection.

    Raises:
        DatasetNotFoundError: The data set cannot be downloaded.
    """

    def not_found(reason: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"Data set {builder.name!r} is not in {folder} and could not be downloaded "
            f"({reason}): set TFDS_DATA_DIR to a folder that contains it, "
            "or run once with a connection."
        )

    if not is_reachable(source):
        raise not_found(f"no answer from {urlsplit(source).hostname}")
    # A private download folder, so that everything in it can be removed.
    with (
        remove_new_empty_folders(Path(folder, builder.name)),
        tempfile.TemporaryDirectory(prefix="keras_iterconv_") as downloads,
    ):
        try:
            builder.download_and_prepare(download_dir=downloads)
        except ModuleNotFoundError as error:
            # TFDS 4.9.10 needs importlib_resources for a download but does not declare it.
            raise not_found(f"`pip install {error.name}` is needed for that") from error
        except Exception as error:
            raise not_found(first_line(error)) from error


@contextmanager
def remove_new_empty_folders(innermost: Path) -> Iterator[None]:
    """Remove, after a failure, the new empty folders of a data set.

    TFDS creates them before it writes a file.

    Args:
        innermost: Folder of the data set's versions.
    """
    new = [path for path in (innermost, *innermost.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):  # Not empty: another process uses it.
                path.rmdir()
        raise


def first_line(error: Exception) -> str:
    """Return the first line of an error, without the names of TensorFlow's nodes and devices."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^\{\{.*?\}\} *|Error in user-defined .*?iterator: \S+: | *\[Op:.*$", "", text)
    return text.rstrip(".")
