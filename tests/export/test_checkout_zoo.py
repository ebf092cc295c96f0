"""The trained models of this checkout: whole, small, and as good as they are said to be."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest

import keras_iterconv as ki
from export.zoo_folder import check_index
from keras_iterconv.zoo.index import verified_path

ZOO = Path(__file__).parents[2] / "saved_models"
INDEX = json.loads((ZOO / "index.json").read_text(encoding="utf-8"))
MODELS = INDEX["models"]
# The `.keras` files as version 0.1.0 published them. A model that is trained again is a new version
# beside the old one, whose file must stay loadable.
RELEASED = {
    "icr_w8_mnist": "cea14a7fa3bb6601af845cf8868694ef38ad578e945bf35c07d7dc58fe832ba2",
    "nais10_digits": "8780a066585260baef5899907541252ece02d99806f4c98b21748040b546c367",
    "nais_adaptive_digits": "df3743ee3cbd308103cd9b9ce063d86137999c9b44be675def6e41c7632d6a62",
    "nais_mnist": "39d349464c90c129af5b3cd415b74e86b9eb7d7132f1b736955c6185361b1c75",
    "nais_mnist_adaptive": "c587608566a0673037abcac5705bf4b3a6d70d4add59a959569e4d77f3f689fe",
    "pcr_w8_mnist": "63a7216ece05a67c6b647a59e5f786a9576fcb823cb6da18289352138df89609",
    "resnet_w8_mnist": "c7ed29bd3f9889e1e6704c9b79f59e33c78e781f3ac3e79ed11e4a08f3e39e4f",
}


def test_the_index_fits_its_schema_and_all_is_under_100_mb():
    check_index(INDEX, ZOO)
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 100e6
    named = {ZOO / file for entry in MODELS.values() for file in entry["files"]}
    assert set(files) == {ZOO / "index.json", *named}


@pytest.mark.parametrize("name", MODELS)
def test_files_are_those_that_were_published(name):
    paths = [verified_path(ZOO, name, file, facts) for file, facts in MODELS[name]["files"].items()]
    (path,) = [path for path in paths if path.suffix == ".onnx"]
    weights = 4 * MODELS[name]["parameters"]
    assert weights < path.stat().st_size < 1.1 * weights
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [part.name for part in session.get_inputs()] == ["image"]
    (card,) = [path for path in paths if path.name == "README.md"]
    assert MODELS[name]["command"] in card.read_text(encoding="utf-8")


def test_accuracies_are_those_that_the_zoo_was_made_for():
    accuracy = {name: entry["result"]["test_accuracy"] for name, entry in MODELS.items()}
    assert accuracy["nais_mnist"] >= 0.973
    assert accuracy["nais10_digits"] >= 0.97


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model_loads_and_predicts_as_its_released_onnx_file(name):
    path = ZOO / name / "1" / f"{name}.keras"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == RELEASED[name]
    model = keras.models.load_model(path)
    assert type(model) is ki.IterativeModel
    preprocessing = ki.load_pretrained(name, ZOO).preprocessing
    shape = model.input_shape[1:]
    # Strokes of several strengths on black, so that depths differ.
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (6, *shape)) * (rng.uniform(size=(6, *shape)) < 0.3)
    images = (images * np.linspace(4, 16, 6).reshape(-1, 1, 1, 1)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        path.with_suffix(".onnx"), providers=["CPUExecutionProvider"]
    )
    outputs = ("logits", "depth", "status")
    expected = dict(zip(outputs, session.run(outputs, {"image": images}), strict=True))
    found = ki.with_depth(model)((images - preprocessing.mean) / preprocessing.std)
    largest = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=1e-4 * largest)
    for key in ("depth", "status"):
        np.testing.assert_array_equal(found[key], expected[key])
