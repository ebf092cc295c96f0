"""Reading from a TFDS folder: quick and quiet when it fails, one sentence each time.

`tfds.load` alone, without a connection, retries for more than three minutes, prints some forty
warnings, leaves temporary files in the folder, and ends in a traceback of urllib3.
"""

import os
import re
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

PROBE_SECONDS = 8.0


class DatasetError(RuntimeError):
    """A data set cannot be had; the message is one sentence for the user."""


class DatasetNotFoundError(DatasetError):
    """A data set is not in the TFDS folder and could not be downloaded."""


class DatasetCorruptedError(DatasetError):
    """A data set is in the TFDS folder but cannot be read."""


def tfds_folder() -> str:
    """The folder that TFDS looks in: $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    TFDS reads the variable once, at import; here it counts whenever a data set is loaded.
    """
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def is_reachable(url: str, timeout: float = PROBE_SECONDS) -> bool:
    """Whether anything answers at `url`, through the user's proxies if there are any.

    Args:
        url: An http or https address; any status counts as an answer.
        timeout: How long to wait, in seconds, name lookup included.
    """
    import requests

    answers = []

    def ask():
        with suppress(requests.RequestException):
            answers.append(requests.head(url, timeout=timeout, allow_redirects=False))

    # requests cannot bound the name lookup, which may hang for minutes behind some firewalls.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(answers)


def read_tfds(name: str, source: str) -> tuple[dict[str, tuple], tuple[str, ...]]:
    """Read the splits `train` and `test` of an image data set, downloading it where possible.

    Args:
        name: The data set's name in TFDS.
        source: The address that TFDS would download it from; asked first, since TFDS itself
            takes minutes to notice that there is no connection.

    Returns:
        `(splits, classes)`: for each split `(images uint8 [N, H, W, C], labels int32 [N])`, and
        the class names.

    Raises:
        DatasetNotFoundError: If the folder does not hold it and it cannot be downloaded.
        DatasetCorruptedError: If the folder holds it, damaged.
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
        _download(builder, folder, source)

    splits = read_parts(builder, {part: part for part in ("train", "test")}, remedy)
    return splits, tuple(builder.info.features["label"].names)


def read_parts(
    builder, parts: dict[str, str], remedy: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read parts of a prepared data set into memory.

    Args:
        builder: A TFDS builder of images with labels.
        parts: What to read, in TFDS's words, for example `"train[:100]"`, by split.
        remedy: What the user can do where the data set is damaged.

    Returns:
        For each part `(images uint8 [N, H, W, C], labels int32 [N] or [N, C])`.

    Raises:
        DatasetCorruptedError: If a part is missing or cannot be read.
    """
    import tensorflow_datasets as tfds

    damaged = f"Data set {builder.name!r} in {builder.data_path.parent} is damaged"
    # TFDS would keep a copy of a small data set for a second reading that never comes.
    once = tfds.ReadConfig(try_autocache=False)
    splits = {}
    for part, wanted in parts.items():
        if part not in builder.info.splits:
            raise DatasetCorruptedError(f"{damaged} (no split {part!r} is described): {remedy}.")
        try:
            # The whole split as one batch: TF also checks its length against dataset_info.json.
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


def _download(builder, folder: str, source: str) -> None:
    """Download and prepare a data set, and leave nothing behind where that fails."""

    def not_found(reason: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"Data set {builder.name!r} is not in {folder} and could not be downloaded "
            f"({reason}): set TFDS_DATA_DIR to a folder that holds it, "
            "or run once with a connection."
        )

    if not is_reachable(source):
        raise not_found(f"no answer from {urlsplit(source).hostname}")
    # A private download folder: whatever an attempt leaves there is this attempt's own.
    with (
        remove_new_empty_folders(Path(folder, builder.name)),
        tempfile.TemporaryDirectory(prefix="keras_iterconv_") as downloads,
    ):
        try:
            builder.download_and_prepare(download_dir=downloads)
        except ModuleNotFoundError as error:
            # TFDS 4.9.10 needs importlib_resources to download, but does not require it.
            raise not_found(f"`pip install {error.name}` is needed for that") from error
        except Exception as error:
            raise not_found(first_line(error)) from error


@contextmanager
def remove_new_empty_folders(innermost: Path):
    """Remove, after a failure, the folders TFDS makes before it has anything to put in them.

    Args:
        innermost: The folder that holds a data set's versions.
    """
    new = [path for path in (innermost, *innermost.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):  # Not empty, so not this attempt's alone.
                path.rmdir()
        raise


def first_line(error: Exception) -> str:
    """What went wrong, without the names of TF's nodes and devices."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^\{\{.*?\}\} *|Error in user-defined .*?iterator: \S+: | *\[Op:.*$", "", text)
    return text.rstrip(".")
