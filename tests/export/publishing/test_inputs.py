"""Publishing with `--inputs`: how the depth of the ONNX file is set, and what the check runs."""

import json
from hashlib import sha256

import numpy as np
import onnx
import onnxruntime
import pytest

import keras_iterconv as ki
from export.classifier import OnnxClassifier
from export.hub_card import make_front_matter

IMAGES = np.random.default_rng(0).integers(0, 17, (9, 8, 8, 1)).astype(np.float32)


def expected(zoo, **depth):
    """Return the depths that the Keras model has, at another depth if one is given."""
    model = ki.load_pretrained("small", zoo)
    ki.set_depth(model, **depth)
    return ki.with_depth(model)(model.preprocessing(IMAGES))["depth"].numpy()


@pytest.mark.usefixtures("undescribed")
@pytest.mark.parametrize("inputs", ["required", "fixed"])
def test_the_file_has_such_inputs(publish_command, finished_run, tmp_path, inputs):
    arguments = ("--zoo", tmp_path, "--name", "small", "--format", "onnx", "--inputs", inputs)
    assert publish_command(finished_run, *arguments, "--license", "CC-BY-4.0")[0::2] == (0, "")
    entry = json.loads((tmp_path / "index.json").read_text())["models"]["small"]
    assert entry["license"] == "CC-BY-4.0"
    assert make_front_matter("small", entry, onnx=True).count('license: "cc-by-4.0"') == 1
    path = tmp_path / "small" / "1" / "small.onnx"
    classifier = OnnxClassifier(path)
    assert (classifier.adaptive, classifier.settable) == (True, inputs == "required")
    np.testing.assert_array_equal(classifier.classify(IMAGES).depth, expected(tmp_path))
    depth_inputs = ["threshold", "max_unroll"] if inputs == "required" else []
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [part.name for part in session.get_inputs()] == ["image", *depth_inputs]
    assert session.get_overridable_initializers() == []
    given = {"threshold": 4.0, "max_unroll": 3}
    if inputs == "required":
        found = classifier.classify(IMAGES, **given).depth
        np.testing.assert_array_equal(found, expected(tmp_path, **given))
        assert not (found == expected(tmp_path)).all()
    else:
        with pytest.raises(ValueError, match=r"written with fixed inputs, threshold 1\.5"):
            classifier.classify(IMAGES, **given)
    card = (tmp_path / "small" / "1" / "README.md").read_text()
    assert ("small.onnx picture.png --threshold" in card) == (inputs == "required")
    entry = json.loads((tmp_path / "index.json").read_text())["models"]["small"]
    assert entry["depth"] == {"threshold": 1.5, "max_unroll": 25}
    assert publish_command("--check", "--zoo", tmp_path)[0::2] == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--inputs", "none"], "--inputs must be of settable, required, fixed: none"),
        (["RUN", "--inputs", "fixed", "--format", "saved_model"], "the format onnx"),
        (["--check", "--inputs", "fixed"], "--inputs must be used with a RUN"),
        (
            ["RUN", "--inputs", "required", "--quantize", "int8"],
            "must be settable or fixed",
        ),
    ],
)
def test_options_that_do_not_fit(publish_command, finished_run, tmp_path, arguments, message):
    arguments = [finished_run if each == "RUN" else each for each in arguments]
    code, _, error = publish_command(*arguments, "--zoo", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_the_check_compares_the_fixed_depth_alone(publish_command, zoo):
    """A file of another threshold than its metadata says is found, whatever its inputs are."""
    path = zoo / "small" / "1" / "small.onnx"
    file = onnx.load(path)
    del file.graph.input[1:]
    (threshold,) = [z for z in file.graph.initializer if z.name == "threshold"]
    threshold.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.float32), "threshold"))
    onnx.save(file, path)
    index = json.loads((zoo / "index.json").read_text())
    files = index["models"]["small"]["files"]
    (facts,) = [facts for name, facts in files.items() if name.endswith("small.onnx")]
    facts |= {"bytes": path.stat().st_size, "sha256": sha256(path.read_bytes()).hexdigest()}
    (zoo / "index.json").write_text(json.dumps(index))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert code == 2
    assert "metadata says threshold 1.5, its default is 3" in error
