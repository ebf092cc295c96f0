"""Classification with a LiteRT file, against Keras, and the files that it refuses."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_iterconv as ki
from export import litert_classifier, predict
from export.classifier import ModelFileError
from export.litert_classifier import LiteRTClassifier
from keras_iterconv.exporting import litert

pytest.importorskip("ai_edge_litert", reason="needs the extra `litert`")

SHAPE = (6, 5, 3)
NAMES = ["cat", "dog", "bird"]
MEAN, STD = [90.0, 100.0, 110.0], 50.0


def make_net(blocks=2, **options):
    keras.utils.set_random_seed(3)
    x = images = keras.Input(SHAPE)
    for _ in range(blocks):
        x = ki.NAISConv2D(3, step_size=0.5, **options)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return ki.IterativeModel(images, keras.layers.Dense(3)(x), name="pets")


def draw(count):
    scales = np.geomspace(1, 100, count)[:, None, None, None]
    noise = np.random.default_rng(count).normal(size=(count, *SHAPE))
    return np.clip(100 + scales * noise, 0, 255).astype(np.float32)


@pytest.fixture(scope="module")
def adaptive():
    return make_net(max_unroll=9, threshold=0.3)


@pytest.fixture(scope="module")
def file(adaptive, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "net.tflite"
    ki.export_litert(adaptive, path, classes=NAMES, mean=MEAN, std=STD)
    return path


def assert_as_keras(found, net, images):
    expected = ki.with_depth(net)((images - np.float32(MEAN)) / np.float32(STD))
    np.testing.assert_allclose(found.logits, expected["logits"], rtol=1e-4, atol=1e-5)
    odds = np.exp(expected["logits"])
    np.testing.assert_allclose(found.probabilities, odds / odds.sum(1, keepdims=True), rtol=1e-3)
    np.testing.assert_array_equal(found.depth, expected["depth"])
    np.testing.assert_array_equal(found.status, expected["status"])


@pytest.mark.parametrize("count", [1, 7])
def test_it_answers_as_keras_at_each_depth(adaptive, file, count):
    classifier, images = LiteRTClassifier(file, threads=2), draw(count)
    assert_as_keras(classifier.classify(images), adaptive, images)
    for given in ({"max_unroll": 2}, {"threshold": 1.5}, {"threshold": 0.1, "max_unroll": 6}):
        net = make_net(max_unroll=9, threshold=0.3)
        ki.set_depth(net, **given)
        assert_as_keras(classifier.classify(images, **given), net, images)
    assert_as_keras(classifier.classify(images), adaptive, images)


def test_what_it_says_of_a_file(file):
    net = LiteRTClassifier(file)
    assert net.classes == tuple(NAMES)
    assert (net.input_shape, net.picture_shape) == (SHAPE, SHAPE)
    assert (net.adaptive, net.settable, net.threshold, net.max_unroll) == (True, True, 0.3, 9)
    assert (net.scale, net.preparation, net.per_position) == (255, None, False)
    empty = net.classify(draw(1)[:0])
    assert [output.shape for output in empty] == [(0, 3), (0, 3), (0, 2), (0, 2)]


def test_a_fixed_and_untied_depth_cannot_be_exceeded(tmp_path):
    fixed = make_net(1, max_unroll=3)
    ki.export_litert(fixed, tmp_path / "fixed.tflite", classes=NAMES, mean=MEAN, std=STD)
    net = LiteRTClassifier(tmp_path / "fixed.tflite")
    assert_as_keras(net.classify(draw(2)), fixed, draw(2))
    with pytest.raises(ValueError, match="`threshold` must be left out: the depth of this model"):
        net.classify(draw(1), threshold=0.5)
    untied = make_net(1, max_unroll=3, threshold=0.1, tied=False)
    ki.export_litert(untied, tmp_path / "untied.tflite", classes=NAMES)
    with pytest.raises(ValueError, match="`max_unroll` must be an integer from 1 to 3"):
        LiteRTClassifier(tmp_path / "untied.tflite").classify(draw(1), max_unroll=4)


def test_the_command_prints_what_it_does_for_the_onnx_file(adaptive, file, tmp_path, capfd):
    ki.export_onnx(adaptive, tmp_path / "net.onnx", classes=NAMES, mean=MEAN, std=STD)
    for number, pixels in enumerate(draw(3)):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    # TensorFlow may have logged the export.
    capfd.readouterr()
    printed = []
    for path in (file, tmp_path / "net.onnx"):
        arguments = [path, tmp_path, "--json", "--top", 1, "--threshold", 0.5]
        assert predict.main(list(map(str, arguments))) == 0
        screen, error = capfd.readouterr()
        assert error == ""
        printed.append(json.loads(screen))
    for ours, onnx in zip(*printed, strict=True):
        (first,), (other,) = ours.pop("top"), onnx.pop("top")
        assert first["class"] == other["class"]
        assert first["probability"] == pytest.approx(other["probability"], abs=1e-5)
        assert ours == onnx
    assert len({tuple(entry["depth"]) for entry in printed[0]}) > 1


def test_it_needs_no_tensorflow(file):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'onnxruntime')));"
        "import numpy as np; from export.litert_classifier import LiteRTClassifier;"
        f"images = np.zeros((2, {SHAPE[0]}, {SHAPE[1]}, 3), np.float32);"
        f"print(LiteRTClassifier({str(file)!r}).classify(images).depth.shape)"
    )
    root = Path(predict.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    # Nor does LiteRT announce its delegate, as it does once in each process.
    assert (done.stdout, done.stderr, done.returncode) == ("(2, 2)\n", "", 0)


def test_one_name_of_the_metadata():
    assert litert_classifier.METADATA_FILE == litert.METADATA_FILE


def rewrite(file, change):
    """Write a file with other metadata: None for none."""
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        texts = json.loads(archive.read(litert.METADATA_FILE))
        begin = min(part.header_offset for part in archive.infolist())
    file.write_bytes(content[:begin])
    if change is not None:
        litert.add_metadata(file, {**texts, **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "its metadata lacks `model`"),
        ({"classes": '["cat", "dog"]'}, "it names 2 classes for 3 logits"),
        ({"scale": "0"}, "`scale` in its metadata must be a positive number"),
        ({"max_unroll": "many"}, "`max_unroll` in its metadata must be a positive integer"),
    ],
)
def test_a_file_of_another_contract(file, tmp_path, change, said):
    copy = tmp_path / "net.tflite"
    shutil.copy(file, copy)
    rewrite(copy, change)
    with pytest.raises(ModelFileError, match=said) as raised:
        LiteRTClassifier(copy)
    assert str(raised.value).startswith(f"{copy} is not a model that keras_iterconv exported")


def test_a_model_without_classes_is_no_classifier(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(1)])
    ki.export_litert(model, tmp_path / "net.tflite")
    with pytest.raises(ModelFileError, match=r"its inputs are \['x'\] instead of \['image'\]"):
        LiteRTClassifier(tmp_path / "net.tflite")


@pytest.mark.parametrize("content", [b"", b"no model", b"x" * 9000, None, "folder", "half"])
def test_a_file_that_is_no_model(file, tmp_path, capfd, content):
    path = tmp_path / "net.tflite"
    if content == "half":
        content = file.read_bytes()[:9000]
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError) as raised:
        LiteRTClassifier(path)
    assert str(raised.value).startswith(f"{path} ")
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_what_is_missing_or_wrong_is_one_line(file, monkeypatch):
    with pytest.raises(ValueError, match=r"`threads` must be an integer.*Received: threads=0"):
        LiteRTClassifier(file, threads=0)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match="run `pip install ai-edge-litert`"):
        LiteRTClassifier(file)
