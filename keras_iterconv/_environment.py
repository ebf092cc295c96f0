"""What must be settled before TensorFlow is imported; imported first by the package."""

import importlib.util
import os
import sys

# oneDNN doubles the speed of the convolutions on a CPU and is off by default on some of them.
# TensorFlow reads the variable once, at its import: later it is too late, and a user's own
# value wins.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_REMEDY = (
    "keras_iterconv runs on Keras's TensorFlow backend only; set the environment variable "
    "KERAS_BACKEND=tensorflow before Keras is imported. Received: backend={!r}"
)

# The values that TensorFlow takes for true. Without the package that it then looks for, whatever
# touches tf.keras fails with "Keras cannot be imported", anywhere and late.
LEGACY_KERAS = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")
if LEGACY_KERAS and importlib.util.find_spec("tf_keras") is None:
    raise ImportError(
        "TF_USE_LEGACY_KERAS asks TensorFlow for Keras 2, whose package tf_keras is not installed, "
        "and keras_iterconv runs on Keras 3; unset the environment variable TF_USE_LEGACY_KERAS. "
        f"Received: TF_USE_LEGACY_KERAS={os.environ['TF_USE_LEGACY_KERAS']}"
    )

# Keras takes an empty value for none.
_backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _backend != "tensorflow":
    raise ImportError(_REMEDY.format(_backend))

try:
    import keras
except ImportError as error:
    # The configuration file may name a backend that is not even installed.
    config = sys.modules.get("keras.src.backend.config")
    if config is None or config.backend() == "tensorflow":
        raise
    raise ImportError(_REMEDY.format(config.backend())) from error

# The backend can also come from Keras's configuration file.
if keras.backend.backend() != "tensorflow":
    raise ImportError(_REMEDY.format(keras.backend.backend()))
