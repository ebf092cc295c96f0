"""Import of optional packages."""

import warnings
from types import ModuleType

from keras_iterconv._environment import LEGACY_KERAS
from keras_iterconv._support.errors import CorrectableError


class MissingExtraError(CorrectableError, RuntimeError):
    """An optional package is needed and not installed; the message says what to install."""


def require_addons() -> ModuleType:
    """Return the module of TensorFlow Addons, which the extra `addons` installs.

    Returns:
        The module `tensorflow_addons`.

    Raises:
        MissingExtraError: The module cannot be imported.
    """
    if LEGACY_KERAS:
        raise MissingExtraError(
            "TensorFlow Addons would use Keras 2, because TF_USE_LEGACY_KERAS is set; unset this "
            "environment variable."
        )
    try:
        with warnings.catch_warnings():
            # Both warnings are correct. The project pins the one nightly build that was tested with
            # its TensorFlow version, and uses only functions that work there.
            warnings.filterwarnings("ignore", r"\s*TensorFlow Addons \(TFA\) has ended")
            warnings.filterwarnings("ignore", r"\s*Tensorflow Addons supports using Python ops")
            import tensorflow_addons
    except ImportError as error:
        raise MissingExtraError(
            "TensorFlow Addons cannot be imported "
            f'({error}): run `pip install "keras-iterconv[addons]"`; '
            "its last wheels are for Python 3.11 and older, so Python 3.12 is not supported."
        ) from error
    return tensorflow_addons
