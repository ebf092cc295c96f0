"""Loading a data set by its name, or from a folder of pictures, as a run's settings say."""

import os
import warnings
from typing import Any

from keras_iterconv.datasets.catalogue import load
from keras_iterconv.datasets.image_data import ImageData
from keras_iterconv.datasets.picture_folder import load_folder


def load_any(name: str, folder: str | os.PathLike | None, **options: Any) -> ImageData:
    """Return the data set of a folder, or that of a name where the folder is None.

    Pictures that are left out are only in `skipped`, without a warning.

    Args:
        name: Name of a data set for `load`.
        folder: Folder of class folders for `load_folder`.
        **options: Further arguments of these functions.

    Raises:
        ValueError: See `load` and `load_folder`.
        DatasetError: See `load`.

    Example:
        >>> ki.datasets.load_any("digits", None).name
        'digits'

    See also:
        `datasets.load`; `datasets.load_folder`.
    """
    if folder is None:
        return load(name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load_folder(folder, **options)
