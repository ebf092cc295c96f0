"""`python -m export.publish --check`: what it sees of damage, and what it lets pass."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import check
from tests.support.changed_files import change_onnx, rewrite


def test_a_check_of_what_was_published(publish_command, published):
    code, screen, error = publish_command("--check", "--zoo", published, "--trust")
    assert (code, error) == (0, "")
    assert "good" in screen
    assert ".keras, ONNX and SavedModel files are run." in screen
    assert "Not in the index" not in screen
    accuracy = json.loads((published / "index.json").read_text())["models"]["small"]["result"]
    assert f"{accuracy['test_accuracy']:.2%}" in screen


@pytest.mark.parametrize(
    "file",
    [
        "small.keras",
        "small.onnx",
        "README.md",
        "depth.png",
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data-00000-of-00001",
    ],
)
def test_a_check_sees_a_changed_byte(publish_command, zoo, file):
    path = zoo / "small" / "1" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{file} is not the file that was published" in error
    assert "bad" in screen


def test_a_check_sees_what_the_index_claims(publish_command, zoo):
    index = json.loads((zoo / "index.json").read_text())
    result = index["models"]["small"]["result"]
    result["test_accuracy"] = (result["test_accuracy"] + 0.5) % 1
    (zoo / "index.json").write_text(json.dumps(index))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "the test accuracy must be" in error


def change_weight(model, factor):
    """Multiply the largest constant of the outermost graph."""
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(largest) * np.float32(factor)
    largest.CopyFrom(numpy_helper.from_array(array, largest.name))


def change_metadata(model, key, text):
    next(prop for prop in model.metadata_props if prop.key == key).value = text


def add_metadata(model):
    model.metadata_props.add(key="notes", value=2**20 * "a")


def with_external_weights(path):
    """Return an ONNX file that has the first constant in another file."""
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return model.SerializeToString()


WRONG = {
    "much metadata": ("small.onnx", change_onnx(add_metadata), "characters of metadata"),
    "another file's weights": (
        "small.onnx",
        lambda path: path.write_bytes(with_external_weights(path)),
        "must hold all its weights",
    ),
    "other weights": ("small.onnx", change_onnx(lambda m: change_weight(m, 1.01)), "differ"),
    "NaN weights": ("small.onnx", change_onnx(lambda m: change_weight(m, np.nan)), "differ"),
    "no protobuf": ("small.onnx", lambda path: path.write_bytes(b"onnx"), "small:"),
    "classes": (
        "small.onnx",
        change_onnx(lambda m: change_metadata(m, "classes", json.dumps(list("9876543210")))),
        "the ONNX file's classes is",
    ),
    "endless classes": (
        "small.onnx",
        change_onnx(lambda m: change_metadata(m, "classes", json.dumps(10 * [10_000 * "a"]))),
        "the ONNX file's classes is",
    ),
    "threshold": (
        "small.onnx",
        change_onnx(lambda m: change_metadata(m, "threshold", "77")),
        "says threshold 77",
    ),
    "no archive": ("small.keras", lambda path: path.write_bytes(b"PK"), "is damaged"),
    "no graph": (
        "saved_model/saved_model.pb",
        lambda path: path.write_bytes(b"nothing"),
        "small:",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_check_sees_what_a_hash_does_not(publish_command, zoo, how):
    file, change, said = WRONG[how]
    rewrite(zoo, file, change)
    code, screen, error = publish_command("--check", "--zoo", zoo, "--trust")
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("Error: ")
    assert said in error
    assert len(error) < 1000
    assert "bad" in screen


def test_a_check_reads_no_onnx_file_that_is_too_large(publish_command, zoo, monkeypatch):
    monkeypatch.setattr(check, "ONNX_LIMIT", 1000)
    monkeypatch.setattr("onnx.load", lambda *args, **kwargs: pytest.fail("it was read"))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "must have at most 1,000 bytes" in error


@pytest.mark.usefixtures("undescribed")
def test_a_check_compares_a_saved_model_that_is_alone(publish_command, finished_run, tmp_path):
    zoo = tmp_path / "zoo"
    assert (
        publish_command(finished_run, "--zoo", zoo, "--name", "small", "--format", "saved_model")[0]
        == 0
    )

    def spoil_numbers(path):
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        # The exponent of a few weights.
        content[len(content) // 2 : len(content) // 2 + 400 : 4] ^= 0x3F
        path.write_bytes(content.tobytes())

    rewrite(zoo, "saved_model/variables/variables.data-00000-of-00001", spoil_numbers)
    code, _, error = publish_command("--check", "--zoo", zoo, "--trust")
    assert code == 2
    assert error.startswith("Error: small")


def test_a_check_goes_on_with_what_replaced_a_model(publish_command, zoo, monkeypatch):
    """A publication removes the old files while they are read."""
    real = check.load_pretrained

    def replace_first(name, folder):
        monkeypatch.setattr(check, "load_pretrained", real)
        (zoo / "small" / "1").rename(zoo / "small" / "2")
        index = (zoo / "index.json").read_text()
        (zoo / "index.json").write_text(index.replace("small/1/", "small/2/"))
        return real(name, folder)

    monkeypatch.setattr(check, "load_pretrained", replace_first)
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "good" in screen


def test_a_check_tells_of_files_that_are_not_published(publish_command, zoo):
    (zoo / "small" / "[red]notes").write_text("mine")
    (zoo / "small" / "\x1b[2J").write_text("mine")
    (zoo / "link").symlink_to(zoo / "small")
    code, screen, error = publish_command("--check", "--zoo", zoo)
    assert (code, error) == (0, "")
    assert "Not in the index: link, 'small/\\x1b[2J', small/[red]notes\n" in screen


def test_a_place_outside_is_one_line(publish_command, zoo):
    index = json.loads((zoo / "index.json").read_text())
    files = index["models"]["small"]["files"]
    files["../../evil.onnx"] = files.pop("small/1/small.onnx")
    (zoo / "index.json").write_text(json.dumps(index))
    code, _, error = publish_command("--check", "--zoo", zoo)
    assert (code, error.count("\n")) == (2, 1)
    assert "evil.onnx" in error
