"""What importing the package does to TensorFlow's environment, each in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

# Stands in the way of a package, says what TensorFlow would read then, and ends.
AT_THE_IMPORT = """
import os, sys, types

class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            print("oneDNN:", os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
            sys.exit()

sys.meta_path.insert(0, Gate())
"""
AT_THE_IMPORT_OF_TENSORFLOW = AT_THE_IMPORT.format(package="tensorflow") + "import keras_iterconv"


def run(code, **variables):
    removed = ("TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS")
    environment = {k: v for k, v in os.environ.items() if k not in removed}
    environment |= {"PYTHONPATH": str(CHECKOUT), **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_onednn_is_on_when_tensorflow_is_loaded():
    assert run(AT_THE_IMPORT_OF_TENSORFLOW).stdout == "oneDNN: 1\n"


@pytest.mark.parametrize("value", ["0", "1", ""])
def test_the_users_own_value_wins(value):
    result = run(AT_THE_IMPORT_OF_TENSORFLOW, TF_ENABLE_ONEDNN_OPTS=value)
    assert result.stdout == f"oneDNN: {value}\n"


def test_too_late_it_is_left_alone():
    # TensorFlow is there already; Keras comes next.
    code = AT_THE_IMPORT.format(package="keras")
    result = run(
        f"{code}sys.modules['tensorflow'] = types.ModuleType('tensorflow')\nimport keras_iterconv"
    )
    assert result.stdout == "oneDNN: None\n", result.stderr
    # Without it, at the same place, the variable is set.
    assert run(f"{code}import keras_iterconv").stdout == "oneDNN: 1\n"


@pytest.mark.parametrize("backend", ["jax", "torch", "numpy"])
def test_another_backend_is_refused(backend):
    result = run("import keras_iterconv", KERAS_BACKEND=backend)
    error = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert error.startswith("ImportError: keras_iterconv requires the TensorFlow backend of Keras;")
    assert "KERAS_BACKEND=tensorflow" in error
    assert error.endswith(f"Received: backend={backend!r}")


@pytest.mark.parametrize("backend", ["jax", "numpy"])
def test_another_backend_of_the_configuration_file_is_refused(backend, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": backend}))
    result = run("import keras_iterconv", KERAS_HOME=str(tmp_path))
    error = result.stderr.splitlines()[-1]
    assert error.startswith("ImportError: keras_iterconv requires the TensorFlow backend of Keras;")
    assert error.endswith(f"Received: backend={backend!r}")


@pytest.mark.parametrize("backend", ["tensorflow", ""])
def test_tensorflow_itself_is_let_through(backend):
    assert run(AT_THE_IMPORT_OF_TENSORFLOW, KERAS_BACKEND=backend).stdout == "oneDNN: 1\n"


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_legacy_keras_without_its_package_is_refused(value):
    result = run("import keras_iterconv", TF_USE_LEGACY_KERAS=value)
    error = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert error.startswith("ImportError: TF_USE_LEGACY_KERAS asks TensorFlow for Keras 2")
    assert "unset" in error
    assert error.endswith(f"Received: TF_USE_LEGACY_KERAS={value}")


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_what_tensorflow_takes_for_keras_3_is_let_through(value):
    assert run(AT_THE_IMPORT_OF_TENSORFLOW, TF_USE_LEGACY_KERAS=value).stdout == "oneDNN: 1\n"


def test_legacy_keras_with_its_package_is_let_through(tmp_path):
    (tmp_path / "tf_keras.py").touch()
    path = os.pathsep.join([str(CHECKOUT), str(tmp_path)])
    code = AT_THE_IMPORT_OF_TENSORFLOW
    assert run(code, TF_USE_LEGACY_KERAS="1", PYTHONPATH=path).stdout == "oneDNN: 1\n"
