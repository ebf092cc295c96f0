"""Packages that only some runs need."""

import warnings
from types import ModuleType

from keras_iterconv._environment import LEGACY_KERAS


class MissingExtraError(RuntimeError):
    """An optional package is needed and not installed; the message says what to install."""


def require_addons() -> ModuleType:
    """Import TensorFlow Addons, which the extra `addons` brings.

    Returns:
        The module `tensorflow_addons`.

    Raises:
        MissingExtraError: If it cannot be imported.
    """
    if LEGACY_KERAS:
        raise MissingExtraError(
            "TensorFlow Addons would hand out parts of Keras 2, since TF_USE_LEGACY_KERAS is set; "
            "unset this environment variable."
        )
    try:
        with warnings.catch_warnings():
            # Both are true and known: the project pins the one nightly build that was tried with
            # its TensorFlow version, and uses only what works there.
            warnings.filterwarnings("ignore", r"\s*TensorFlow Addons \(TFA\) has ended")
            warnings.filterwarnings("ignore", r"\s*Tensorflow Addons supports using Python ops")
            import tensorflow_addons
    except ImportError as error:
        raise MissingExtraError(
            "TensorFlow Addons cannot be imported "
            f'({error}): run `pip install "keras-iterconv[addons]"`; '
            "its last wheels are for Python 3.11 and older, so Python 3.12 cannot have it."
        ) from error
    return tensorflow_addons
