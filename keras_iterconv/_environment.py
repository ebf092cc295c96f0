"""Environment settings and checks that must precede the import of TensorFlow.

The package imports this module first.
"""

import importlib.util
import os
import sys

# oneDNN doubles the speed of convolutions on a CPU, but is off by default on some CPUs. TensorFlow
# reads the variable once, at its import. A value that the user has set is kept.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_REMEDY = (
    "keras_iterconv requires the TensorFlow backend of Keras; set the environment variable "
    "KERAS_BACKEND=tensorflow before Keras is imported. Received: backend={!r}"
)

# These are the values that TensorFlow reads as true. It then needs the package tf_keras: without
# it, the first use of `tf.keras` fails with "Keras cannot be imported".
LEGACY_KERAS = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")
if LEGACY_KERAS and importlib.util.find_spec("tf_keras") is None:
    raise ImportError(
        "TF_USE_LEGACY_KERAS asks TensorFlow for Keras 2, whose package tf_keras is not installed, "
        "and keras_iterconv runs on Keras 3; unset the environment variable TF_USE_LEGACY_KERAS. "
        f"Received: TF_USE_LEGACY_KERAS={os.environ['TF_USE_LEGACY_KERAS']}"
    )

# Keras ignores an empty value.
_backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _backend != "tensorflow":
    raise ImportError(_REMEDY.format(_backend))

try:
    import keras
except ImportError as error:
    # The configuration file of Keras may name a backend that is not installed.
    config = sys.modules.get("keras.src.backend.config")
    if config is None or config.backend() == "tensorflow":
        raise
    raise ImportError(_REMEDY.format(config.backend())) from error

# The backend can also come from Keras's configuration file.
if keras.backend.backend() != "tensorflow":
    raise ImportError(_REMEDY.format(keras.backend.backend()))
