"""Publishing with `--quantize int8`: the second ONNX file, its facts, and their verification."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.classifier import OnnxClassifier
from export.quantized_file import describe_int8
from keras_iterconv import datasets
from keras_iterconv.exporting.onnx_graph import all_tensors
from tests.support.changed_files import change_onnx, rewrite

FILE = "small_int8.onnx"


@pytest.fixture(scope="module")
def published_once(tmp_path_factory):
    return tmp_path_factory.mktemp("int8") / "zoo"


@pytest.fixture
def quantised(publish_command, undescribed, finished_run, published_once, tmp_path):
    """Return a zoo that holds a net with its int8 file, and in `screen` what was printed."""
    if not published_once.exists():
        options = ("--name", "small", "--format", "onnx", "--quantize", "int8")
        code, screen, error = publish_command(finished_run, "--zoo", published_once, *options)
        assert (code, error) == (0, "")
        (published_once / "screen").write_text(screen)
    return shutil.copytree(published_once, tmp_path / "zoo")


def read_entry(zoo):
    return json.loads((zoo / "index.json").read_text())["models"]["small"]


def test_the_second_file_is_listed_with_its_facts(quantised):
    folder, entry = quantised / "small" / "1", read_entry(quantised)
    facts = entry["int8"]
    assert f"small/1/{FILE}" in entry["files"]
    sizes = [entry["files"][f"small/1/{file}"]["bytes"] for file in (FILE, "small.onnx")]
    assert facts["size"] == pytest.approx(sizes[0] / sizes[1])
    assert facts["size"] < 0.35
    large = [t for t in all_tensors(onnx.load(folder / FILE)) if np.prod(t.dims) > 1000]
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.INT8}
    classifier, data = OnnxClassifier(folder / FILE), datasets.load("digits")
    found = classifier.classify(data.test.images)
    right = found.logits.argmax(axis=1) == data.test.labels
    assert facts["test_accuracy"] == pytest.approx(right.mean())
    assert facts["mean_depth"] == pytest.approx(found.depth.sum(axis=1).mean())
    assert facts["threshold"] == classifier.threshold
    assert facts["test_accuracy"] == pytest.approx(entry["result"]["test_accuracy"], abs=0.01)
    assert facts["mean_depth"] == pytest.approx(entry["result"]["mean_depth"], rel=0.1)


def test_the_screen_and_the_card_report_it(quantised):
    facts = read_entry(quantised)["int8"]
    said = f"{facts['size']:.1%} of the size of the float32 file; test accuracy "
    card = (quantised / "small" / "1" / "README.md").read_text()
    assert f"`{FILE}` has the inputs and outputs of `small.onnx`" in card
    for text in (card, (quantised / "screen").read_text()):
        assert said in text
        assert f"{facts['mean_depth']:.1f} updates per image instead of " in text
        assert "exceeds" not in text


def test_a_check_runs_it(publish_command, quantised):
    (quantised / "screen").unlink()
    code, screen, error = publish_command("--check", "--zoo", quantised)
    assert (code, error) == (0, "")
    assert "Not in the index" not in screen


def scale_weights(model):
    for tensor in all_tensors(model):
        if tensor.name.endswith("/scale"):
            array = numpy_helper.to_array(tensor) * np.float32(3)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda zoo, entry: entry["int8"].update(test_accuracy=0.01), "the test accuracy must be"),
        (lambda zoo, entry: entry["int8"].update(mean_depth=1.0), "must make 1.00 updates"),
        (lambda zoo, entry: entry["int8"].update(threshold=0.7), "ONNX file's depth is"),
        (lambda zoo, entry: entry["int8"].update(operators={"Conv": 1}), "file's operators is"),
        (lambda zoo, entry: entry.pop("int8"), "must have the facts of small_int8.onnx"),
        (lambda zoo, entry: rewrite(zoo, FILE, change_onnx(scale_weights)), "small_int8.onnx: "),
    ],
)
def test_a_check_sees_what_differs(publish_command, quantised, change, message):
    index = json.loads((quantised / "index.json").read_text())
    before = json.dumps(index)
    change(quantised, index["models"]["small"])
    if json.dumps(index) != before:
        (quantised / "index.json").write_text(json.dumps(index))
    code, _, error = publish_command("--check", "--zoo", quantised)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["RUN", "--quantize", "int4"], "--quantize must be int8: int4"),
        (["RUN", "--quantize", "int8", "--format", "saved_model"], "the format onnx"),
        (["--check", "--quantize", "int8"], "must be used with a RUN"),
    ],
)
def test_wrong_options_are_refused(publish_command, tmp_path, options, message):
    code, _, error = publish_command(*options, "--zoo", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_what_a_file_exceeds_is_said():
    entry = {
        "depth": None,
        "result": {"test_accuracy": 0.9, "mean_depth": 10},
        "int8": {"size": 0.36, "test_accuracy": 0.894, "mean_depth": 11.1, "threshold": None},
    }
    text = describe_int8(entry)
    assert text.endswith(
        "11.1 updates per image instead of 10.0. It exceeds a size of 35% and a loss of accuracy "
        "of 0.5 points and a difference of updates of 10%"
    )
