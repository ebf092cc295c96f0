"""What TensorFlow Serving sees of a SavedModel: `saved_model_cli show`."""

import re
import subprocess
import sys

import keras

import keras_iterconv as ki

TENSOR = r"(inputs|outputs)\['(.*)'\] tensor_info:\s+dtype: (\S+)\s+shape: (\S.*)"


def show(folder):
    """Return the tensors of each signature, by kind and name: dtype and shape."""
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--all"]
    done = subprocess.run(
        [*command, "--dir", folder], capture_output=True, text=True, check=True, timeout=120
    )
    _, *parts = re.split(r"signature_def\['(.*)'\]:", done.stdout)
    return {
        name: {(kind, tensor): facts for kind, tensor, *facts in re.findall(TENSOR, text)}
        for name, text in zip(parts[::2], parts[1::2], strict=True)
        if name != "__saved_model_init_op"
    }


def test_both_signatures_take_batches_of_any_size(tmp_path):
    images = keras.Input((5, 4, 3), name="images")
    x = ki.NAISConv2D(3, max_unroll=4, threshold=0.5)(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    ki.export_saved_model(keras.Model(images, keras.layers.Dense(2)(x)), tmp_path / "net")
    plain = {
        ("inputs", "images"): ["DT_FLOAT", "(-1, 5, 4, 3)"],
        ("outputs", "logits"): ["DT_FLOAT", "(-1, 2)"],
        ("outputs", "depth"): ["DT_INT32", "(-1, 1)"],
        ("outputs", "status"): ["DT_INT32", "(-1, 1)"],
    }
    depth = {
        ("inputs", "threshold"): ["DT_FLOAT", "()"],
        ("inputs", "max_unroll"): ["DT_INT32", "()"],
    }
    assert show(tmp_path / "net") == {"serving_default": plain, "with_depth": {**plain, **depth}}
